// One step of the recurrence, for rows and blocks of units.

#pragma once

#include <string.h>

#include "lstm.h"
#include "products.h"
#include "sizes.h"
#include "vectors.h"

namespace KL_SET {
namespace {

template <class S>
struct Forward {
  const kl_forward *a;
  int64_t blocks, width;  // of units, padded
  S *panels, *bias;
  S *h;        // (2, B, width): of each row the one of its parity is now
  S *dropped;  // (2, gates, B, width), where h is dropped out; or null
  S *c;        // (B, width)
  S *lines;    // (2, B, threads, lines_each) cache lines, where threads share the units; or null
  int64_t lines_each;

  const S *now(int64_t parity, int64_t row) const {
    const int64_t gates = most(1, a->h_drop_gates);
    if (dropped) return dropped + (parity * gates * a->B + row) * width;
    return h + (parity * a->B + row) * width;
  }
};

template <class S>
struct Step {
  int64_t t, at;          // the step, and where x has it
  const int64_t *rows;    // of the batch
  const int64_t *active;  // indices into rows
  const uint8_t *parity;  // by index
  const S *projected;     // x K + b of this step, (n, blocks of the part, 4, lanes); or null
  const S *x_dropped;     // (4, n, F), or null
  int64_t n, first, last;  // rows, and blocks of units, of the part
};

template <class S>
KL_INLINE void keep_h(const Forward<S> &f, int64_t parity, int64_t row, int64_t block, V<S> h) {
  const kl_forward &a = *f.a;
  const int64_t L = lanes<S>, at = block * L;
  store(f.h + (parity * a.B + row) * f.width + at, h);
  for (int64_t g = 0; g < a.h_drop_gates; ++g) {
    const S *drop = static_cast<const S *>(a.h_drop) + (g * a.B + row) * a.H + at;
    S *to = f.dropped + ((parity * a.h_drop_gates + g) * a.B + row) * f.width + at;
    store(to, h * load(drop, a.H - at));
  }
}

// From z, i f g o before their activations, to h and c of a block of rows and units. Each stage is
// of all rows: while one waits for its results, the others compute. One copy serves all blocks.
template <class S, int64_t ACTIVATION, int64_t RECURRENT>
__attribute__((noinline)) void forward_cells(const Forward<S> &f, const Step<S> &s,
                                             const int64_t *active, int rows, int64_t block,
                                             V<S> (*z)[4]) {
  const kl_forward &a = *f.a;
  const int64_t activation = ACTIVATION == KL_ANY ? a.activation : ACTIVATION;
  const int64_t recurrent = RECURRENT == KL_ANY ? a.recurrent_activation : RECURRENT;
  const int64_t at = block * lanes<S>, units = a.H - at;
  V<S> c[TILE];
  for (int r = 0; r < rows; ++r) {
    const int64_t row = s.rows[active[r]];
    const V<S> input = activated<S>(recurrent, z[r][0]), forget = activated<S>(recurrent, z[r][1]);
    const V<S> candidate = activated<S>(activation, z[r][2]);
    z[r][3] = activated<S>(recurrent, z[r][3]);
    S *cell = f.c + row * f.width + at;
    c[r] = forget * load(cell) + input * candidate;
    store(cell, c[r]);
    if (a.gates == nullptr) continue;
    S *gates = static_cast<S *>(a.gates) + (s.t * a.B + row) * 4 * a.H + at;
    store(gates, input, units);
    store(gates + a.H, forget, units);
    store(gates + 2 * a.H, candidate, units);
    store(gates + 3 * a.H, z[r][3], units);
    store(static_cast<S *>(a.cs) + ((s.t + 1) * a.B + row) * a.H + at, c[r], units);
  }
  for (int r = 0; r < rows; ++r) {
    const int64_t i = active[r], row = s.rows[i];
    const V<S> h = z[r][3] * activated<S>(activation, c[r]);
    keep_h(f, 1 - s.parity[i], row, block, h);
    if (a.hs) store(static_cast<S *>(a.hs) + row * a.hs_row + s.t * a.hs_step + at, h, units);
  }
}

// Where the sums of row i begin: at the bias, or at x K + b.
template <class S>
KL_INLINE const S *start_of(const Forward<S> &f, const Step<S> &s, int64_t i, int64_t block) {
  const int64_t wide = 4 * lanes<S>;
  if (s.projected == nullptr) return f.bias + block * wide;
  return s.projected + (i * (s.last - s.first) + block - s.first) * wide;
}

// One step of R rows and one block of units.
template <class S, int R>
void forward_block(const Forward<S> &f, const Step<S> &s, int64_t begin, int64_t block) {
  const kl_forward &a = *f.a;
  const int64_t L = lanes<S>;
  const S *panel = f.panels + block * (a.F + a.H) * 4 * L;
  const S *x[R], *h[R];
  V<S> sum[R][4];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    const int64_t i = s.active[begin + r], row = s.rows[i];
    h[r] = f.now(s.parity[i], row);
    x[r] = static_cast<const S *>(a.x) + row * a.x_row + s.at * a.x_step;
    const S *from = start_of(f, s, i, block);
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) sum[r][g] = load(from + g * L);
  }
  if (s.projected == nullptr) product<S, R>(sum, x, a.F, panel);
  product<S, R>(sum, h, a.H, panel + a.F * 4 * L);
  V<S> z[R][4];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) z[r][g] = sum[r][g];
  KL_BY_ACTIVATIONS(forward_cells, S, a)(f, s, s.active + begin, R, block, z);
}

// One step of `rows` rows and one or two blocks of units, where x or h is another for each gate.
template <class S>
void forward_tile(const Forward<S> &f, const Step<S> &s, int64_t begin, int64_t rows,
                  int64_t block, int64_t blocks) {
  const kl_forward &a = *f.a;
  const int64_t L = lanes<S>, wide = (a.F + a.H) * 4 * L;
  const S *panel = f.panels + block * wide;
  const S *x[TILE], *h[TILE];
  V<S> z[2][TILE][4];
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t i = s.active[begin + r], row = s.rows[i];
    h[r] = f.now(s.parity[i], row);
    x[r] = s.x_dropped ? s.x_dropped + i * a.F
                       : static_cast<const S *>(a.x) + row * a.x_row + s.at * a.x_step;
    for (int64_t n = 0; n < blocks; ++n) {
      const S *from = start_of(f, s, i, block + n);
      for (int64_t g = 0; g < 4; ++g) z[n][r][g] = load(from + g * L);
    }
  }
  const int64_t x_apart = s.x_dropped ? s.n * a.F : 0;
  const int64_t h_apart = a.h_drop_gates == 4 ? a.B * f.width : 0;
  if (s.projected == nullptr) tile_product<S>(rows, blocks, z, x, x_apart, a.F, panel, wide);
  tile_product<S>(rows, blocks, z, h, h_apart, a.H, panel + a.F * 4 * L, wide);
  const auto cells = KL_BY_ACTIVATIONS(forward_cells, S, a);
  for (int64_t n = 0; n < blocks; ++n)
    cells(f, s, s.active + begin, static_cast<int>(rows), block + n, z[n]);
}

template <class S>
void forward_step(const Forward<S> &f, const Step<S> &s, int64_t active) {
  const bool by_gate = s.x_dropped != nullptr || f.a->h_drop_gates == 4;
  const int64_t together = by_gate ? 2 : 1, parts = parts_of(s.last - s.first, together);
  for (int64_t i = 0; i < parts; ++i) {
    // To and fro: the weights that a step has read last are still in the cache at the next.
    const int64_t block = s.first + (s.t % 2 ? parts - 1 - i : i) * together;
    if (by_gate) {
      const int64_t blocks = least(together, s.last - block);
      in_blocks(active, TILE, [&](int64_t begin, int64_t rows) {
        forward_tile(f, s, begin, rows, block, blocks);
      });
      continue;
    }
    in_blocks(active, KL_ROWS, [&](int64_t begin, int64_t rows) {
#define KL_CALL(R) forward_block<S, R>(f, s, begin, block)
      KL_BY_ROWS(KL_CALL, rows)
#undef KL_CALL
    });
  }
}

// x K + b of R pairs of a step and a row.
template <class S, int R>
void project_block(const Forward<S> &f, const int64_t *pairs, const S *const *from, S *to,
                   int64_t first, int64_t last, int64_t block) {
  const int64_t L = lanes<S>;
  const S *x[R];
  V<S> sum[R][4];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    x[r] = from[r];
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g) sum[r][g] = load(f.bias + (block * 4 + g) * L);
  }
  product<S, R>(sum, x, f.a->F, f.panels + block * (f.a->F + f.a->H) * 4 * L);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int g = 0; g < 4; ++g)
      store(to + (pairs[r] * (last - first) + block - first) * 4 * L + g * L, sum[r][g]);
}

}  // namespace
}  // namespace KL_SET
