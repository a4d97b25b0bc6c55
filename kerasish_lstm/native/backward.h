// The backward: from the gradients of h and c to those before each step, to weights and inputs.

#pragma once

#include <stdlib.h>

#include "lstm.h"
#include "parts.h"
#include "products.h"
#include "sizes.h"
#include "threads.h"
#include "vectors.h"

using kerasish_lstm::DenormalsAreZero;

namespace KL_SET {
namespace {

template <class S>
KL_INLINE V<S> drop_of(const kl_backward &a, int64_t gate, int64_t row, int64_t at) {
  const S *drop = static_cast<const S *>(a.h_drop) + (gate * a.B + row) * a.H + at;
  return load(drop, a.H - at);
}

// dh = dz R' of R rows, for one piece of the units.
template <class S, int R>
void backward_block(const kl_backward &a, const int64_t *rows, const S *const *from,
                    int64_t piece) {
  const int64_t L = lanes<S>, K = 4 * a.H;
  const S *dz[R];
  V<S> sum[R][4];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    dz[r] = from[r];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) sum[r][v] = V<S>{};
  }
  product<S, R>(sum, dz, K, static_cast<const S *>(a.pack) + piece * K * 4 * L);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    S *dh = static_cast<S *>(a.dh) + rows[r] * a.H;
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const int64_t at = (piece * 4 + v) * L;
      if (at >= a.H) break;
      if (a.h_drop) sum[r][v] *= drop_of<S>(a, 0, rows[r], at);
      store(dh + at, sum[r][v], a.H - at);
    }
  }
}

// The same of one or two pieces, each of one vector of units, where h was another for each gate.
template <class S>
void backward_tile(const kl_backward &a, const int64_t *rows, const S *const *from, int64_t count,
                   int64_t piece, int64_t pieces) {
  const int64_t L = lanes<S>, wide = a.H * 4 * L;
  V<S> sum[2][TILE][4];
  for (int64_t n = 0; n < pieces; ++n)
    for (int64_t r = 0; r < count; ++r)
      for (int64_t g = 0; g < 4; ++g) sum[n][r][g] = V<S>{};
  const S *panel = static_cast<const S *>(a.pack) + piece * wide;
  tile_product<S>(count, pieces, sum, from, a.H, a.H, panel, wide);
  for (int64_t n = 0; n < pieces; ++n) {
    const int64_t at = (piece + n) * L;
    for (int64_t r = 0; r < count; ++r) {
      V<S> all_gates = {};
      for (int64_t g = 0; g < 4; ++g) all_gates += sum[n][r][g] * drop_of<S>(a, g, rows[r], at);
      store(static_cast<S *>(a.dh) + rows[r] * a.H + at, all_gates, a.H - at);
    }
  }
}

// dz of one row and step, for the units from begin to end; dh takes dy in, dc goes one step back.
template <class S, int64_t ACTIVATION, int64_t RECURRENT>
void backward_cell(const kl_backward &a, int64_t row, int64_t t, S *dz, int64_t begin,
                   int64_t end) {
  const int64_t L = lanes<S>, H = a.H;
  const S *gates = static_cast<const S *>(a.gates) + (t * a.B + row) * 4 * H;
  const S *before = static_cast<const S *>(a.cs) + (t * a.B + row) * H;
  const S *after = static_cast<const S *>(a.cs) + ((t + 1) * a.B + row) * H;
  const S *dy =
      a.dy ? static_cast<const S *>(a.dy) + row * a.dy_row + t * a.dy_step : nullptr;
  S *dh = static_cast<S *>(a.dh) + row * H, *dc = static_cast<S *>(a.dc) + row * H;
  const int64_t f = ACTIVATION == KL_ANY ? a.activation : ACTIVATION;
  const int64_t s = RECURRENT == KL_ANY ? a.recurrent_activation : RECURRENT;
  for (int64_t at = begin; at < end; at += L) {
    const int64_t n = H - at;
    const V<S> i = load(gates + at, n), forget = load(gates + H + at, n);
    const V<S> g = load(gates + 2 * H + at, n), o = load(gates + 3 * H + at, n);
    V<S> d = load(dh + at, n);
    if (dy) d += load(dy + at, n);
    const V<S> squashed = activated<S>(f, load(after + at, n));
    const V<S> dcell = load(dc + at, n) + d * o * slope<S>(f, squashed);
    store(dz + at, dcell * g * slope<S>(s, i), n);
    store(dz + H + at, dcell * load(before + at, n) * slope<S>(s, forget), n);
    store(dz + 2 * H + at, dcell * i * slope<S>(f, g), n);
    store(dz + 3 * H + at, d * squashed * slope<S>(s, o), n);
    store(dc + at, dcell * forget, n);
  }
}

template <class S>
int backward_part(const kl_backward &a, const int64_t *rows, int64_t n, int64_t first,
                  int64_t last, const Place *place) {
  const bool by_gate = a.h_drop_gates == 4;
  const int64_t wide = (by_gate ? 1 : 4) * lanes<S>;
  const int64_t together = by_gate ? 2 : 1, parts = parts_of(last - first, together);
  const int64_t begin = first * wide, end = least(last * wide, a.H);
  char *memory = static_cast<char *>(allocated(2 * n * int64_t(sizeof(int64_t))));
  int64_t *active = reinterpret_cast<int64_t *>(memory);
  const S **from = reinterpret_cast<const S **>(active + n);
  const auto cell = KL_BY_ACTIVATIONS(backward_cell, S, a);
  for (int64_t t = a.stop - 1; t >= a.start; --t) {
    int64_t found = 0;
    for (int64_t i = 0; memory != nullptr && i < n; ++i) {
      const int64_t row = rows[i];
      if (!counts(a, row, t, a.T)) {  // h and c went through
        if (a.dy == nullptr) continue;
        const S *dy = static_cast<const S *>(a.dy) + row * a.dy_row + t * a.dy_step;
        S *dh = static_cast<S *>(a.dh) + row * a.H;
        for (int64_t u = begin; u < end; ++u) dh[u] += dy[u];
        continue;
      }
      const int64_t index = (t - a.start) * a.B + row;
      S *dz = static_cast<S *>(a.dz) + (a.dz_row ? a.dz_row[index] : index) * 4 * a.H;
      cell(a, row, t, dz, begin, end);
      active[found] = row;
      from[found++] = dz;
    }
    if (place) place->barrier->wait();
    for (int64_t i = 0; i < parts; ++i) {
      const int64_t piece = first + (t % 2 ? parts - 1 - i : i) * together;  // as forward
      if (by_gate) {
        const int64_t pieces = least(together, last - piece);
        in_blocks(found, TILE, [&](int64_t at, int64_t some) {
          backward_tile(a, active + at, from + at, some, piece, pieces);
        });
        continue;
      }
      in_blocks(found, KL_ROWS, [&](int64_t at, int64_t some) {
#define KL_CALL(R) backward_block<S, R>(a, active + at, from + at, piece)
        KL_BY_ROWS(KL_CALL, some)
#undef KL_CALL
      });
    }
  }
  free(memory);
  return memory == nullptr ? KL_NO_MEMORY : KL_OK;
}

// to += value v, of n.
template <class S>
KL_INLINE void add(S *__restrict to, S value, const S *__restrict v, int64_t n) {
  for (int64_t i = 0; i < n; ++i) to[i] += value * v[i];
}

// The gradients of x, the kernels and the bias from dz, for a call too small for a matrix product.
template <class S>
void add_sums(const kl_backward &a) {
  const DenormalsAreZero here;
  const int64_t H = a.H, F = a.F;
  const S *w_ih = static_cast<const S *>(a.w_ih), *hs = static_cast<const S *>(a.hs);
  S *d_ih = static_cast<S *>(a.d_ih), *d_hh = static_cast<S *>(a.d_hh);
  S *d_bias = static_cast<S *>(a.d_bias);
  for (int64_t t = a.start; t < a.stop; ++t) {
    const int64_t at = a.reverse ? a.T - 1 - t : t;
    for (int64_t row = 0; row < a.B; ++row) {
      if (!counts(a, row, t, a.T)) continue;
      const S *dz = static_cast<const S *>(a.dz) + ((t - a.start) * a.B + row) * 4 * H;
      const S *x = static_cast<const S *>(a.x) + row * a.x_row + at * a.x_step;
      const S *h = t > 0 ? hs + ((t - 1) * a.B + row) * H
                         : a.h0 ? static_cast<const S *>(a.h0) + row * H : nullptr;
      S *d_x = a.d_x ? static_cast<S *>(a.d_x) + (row * a.T + at) * F : nullptr;
      if (d_bias) add(d_bias, S(1), dz, 4 * H);
      for (int64_t j = 0; j < 4 * H; ++j) {
        if (d_ih) add(d_ih + j * F, dz[j], x, F);
        if (d_hh && h) add(d_hh + j * H, dz[j], h, H);
        if (d_x) add(d_x, dz[j], w_ih + j * F, F);
      }
    }
  }
}

template <class S>
struct BackwardCall {
  const kl_backward *a;
  int part(const int64_t *rows, int64_t n, int64_t first, int64_t last, const Place *place) const {
    return backward_part<S>(*a, rows, n, first, last, place);
  }
};

template <class S>
int backward(const kl_backward *calls, int64_t count) {
  Team<BackwardCall<S>> team;
  for (int64_t i = 0; i < count; ++i) team.call[i].a = &calls[i];
  const kl_backward &one = calls[0];
  const int64_t wide = (one.h_drop_gates == 4 ? 1 : 4) * lanes<S>;
  const double step = 4.0 * one.B * one.H * one.H;
  const int result =
      run_team(team, calls, count, one.stop - one.start, step, parts_of(one.H, wide));
  for (int64_t i = 0; i < count && result == KL_OK; ++i)
    if (calls[i].sums) add_sums<S>(calls[i]);
  return result == KL_OK && team.denormal ? KL_DENORMAL : result;
}

}  // namespace
}  // namespace KL_SET
