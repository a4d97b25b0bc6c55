// Products of rows with panels of weights: the sums stay in registers.

#pragma once

#include "sizes.h"
#include "vectors.h"

namespace KL_SET {
namespace {

const int TILE = KL_ROWS + 2;  // the most rows of a product by gate

// sum[r][g] += a[r] . w[g], over K.
template <class S, int R>
KL_INLINE void product(V<S> (&sum)[R][4], const S *const (&a)[R], int64_t K, const S *w) {
  const int64_t L = lanes<S>;
  if (R == 1) {  // two chains of sums: one would wait for itself
    V<S> other[4] = {};
    int64_t k = 0;
    for (; k + 2 <= K; k += 2, w += 8 * L) {
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) {
        sum[0][g] += a[0][k] * load(w + g * L);
        other[g] += a[0][k + 1] * load(w + (4 + g) * L);
      }
    }
    if (k < K) {
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) sum[0][g] += a[0][k] * load(w + g * L);
    }
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) sum[0][g] += other[g];
    return;
  }
  for (int64_t k = 0; k < K; ++k, w += 4 * L) {
    const V<S> w0 = load(w), w1 = load(w + L), w2 = load(w + 2 * L), w3 = load(w + 3 * L);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V<S> value = all(a[r][k]);
      sum[r][0] += value * w0;
      sum[r][1] += value * w1;
      sum[r][2] += value * w2;
      sum[r][3] += value * w3;
    }
  }
}

// The same where each gate has a row of its own, `apart` on, as under a dropout mask: gate by gate,
// of N blocks, whose panels lie `panel` apart. So a number that is loaded serves N vectors; of all
// four gates at once each would serve one, and loads, not sums, would take the time.
template <class S, int R, int N>
void product_by_gate(V<S> (*sum)[TILE][4], const S *const *a, int64_t apart, int64_t K, const S *w,
                     int64_t panel) {
  const int64_t L = lanes<S>;
  if (R == 1) {  // loads are of weights: in their order, then
    const S *from = a[0];
    V<S> one[N][4] = {};
    for (int64_t k = 0; k < K; ++k, w += 4 * L)
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) {
        const V<S> value = all(from[k + g * apart]);
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) one[n][g] += value * load(w + n * panel + g * L);
      }
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) sum[n][0][g] += one[n][g];
    return;
  }
  const int CHAINS = R * N <= 6 ? 2 : 1;  // of sums: few would wait for themselves
  for (int64_t g = 0; g < 4; ++g) {
    V<S> chain[CHAINS][R][N] = {};
    const S *from[R], *v = w + g * L;
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      from[r] = a[r] + g * apart;
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) chain[0][r][n] = sum[n][r][g];
    }
    int64_t k = 0;
    for (; k + CHAINS <= K; k += CHAINS) {
#pragma GCC unroll 4
      for (int c = 0; c < CHAINS; ++c, v += 4 * L) {
        const V<S> first = load(v), second = N == 2 ? load(v + panel) : first;
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
          const V<S> value = all(from[r][k + c]);
          chain[c][r][0] += value * first;
          if (N == 2) chain[c][r][N - 1] += value * second;
        }
      }
    }
    for (; k < K; ++k, v += 4 * L) {
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) chain[0][r][n] += all(from[r][k]) * load(v + n * panel);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
#pragma GCC unroll 4
        for (int c = 1; c < CHAINS; ++c) chain[0][r][n] += chain[c][r][n];
        sum[n][r][g] = chain[0][r][n];
      }
  }
}

// The product by gate of a tile: of `rows` rows, TILE at most, and one or two blocks.
template <class S, int R = TILE>
void tile_product(int64_t rows, int64_t blocks, V<S> (*sum)[TILE][4], const S *const *a,
                  int64_t apart, int64_t K, const S *w, int64_t panel) {
  if constexpr (R > 1) {
    if (rows < R) return tile_product<S, R - 1>(rows, blocks, sum, a, apart, K, w, panel);
  }
  blocks == 2 ? product_by_gate<S, R, 2>(sum, a, apart, K, w, panel)
              : product_by_gate<S, R, 1>(sum, a, apart, K, w, panel);
}

#if KL_ROWS == 6
#define KL_BY_ROWS(CALL, ROWS) \
  switch (ROWS) {              \
    case 1: CALL(1); break;    \
    case 2: CALL(2); break;    \
    case 3: CALL(3); break;    \
    case 4: CALL(4); break;    \
    case 5: CALL(5); break;    \
    default: CALL(6);          \
  }
#else
#define KL_BY_ROWS(CALL, ROWS) \
  switch (ROWS) {              \
    case 1: CALL(1); break;    \
    case 2: CALL(2); break;    \
    default: CALL(3);          \
  }
#endif

// Blocks of `most` rows at most, as even as can be.
template <class Run>
KL_INLINE void in_blocks(int64_t rows, int64_t most, const Run &run) {
  const int64_t parts = parts_of(rows, most);
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t begin = rows * part / parts;
    run(begin, rows * (part + 1) / parts - begin);
  }
}

}  // namespace
}  // namespace KL_SET
