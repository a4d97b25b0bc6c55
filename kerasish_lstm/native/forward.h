// All steps, for all threads.

#pragma once

#include <stdlib.h>
#include <string.h>

#include "exchange.h"
#include "lstm.h"
#include "packs.h"
#include "parts.h"
#include "products.h"
#include "sizes.h"
#include "step.h"
#include "vectors.h"

namespace KL_SET {
namespace {

const int64_t FEW_ROWS = 8;         // of a thread: below, x K is one product over many steps
const int64_t PROJECTED = 1 << 18;  // bytes of x K at a time

// All steps of n rows, and of the blocks of units from first to last.
template <class S>
int forward_part(const Forward<S> &shared, const int64_t *rows, int64_t n, int64_t first,
                 int64_t last, const Place *place) {
  Forward<S> f = shared;
  const kl_forward &a = *f.a;
  const int64_t L = lanes<S>;
  const bool projects = n < FEW_ROWS && a.T > 1 && a.x_drop == nullptr;
  const int64_t slot = (last - first) * 4 * L;  // of a pair
  const int64_t together =
      projects ? least(a.T, most(1, PROJECTED / most(1, n * slot * int64_t(sizeof(S))))) : 1;
  const int64_t pairs = together * n;
  const int64_t state = a.B * f.width, own = place ? (2 + 2 * a.h_drop_gates) * state : 0;
  const int64_t numbers = own + (projects ? pairs * slot : 0) + (a.x_drop ? 4 * n * a.F : 0);
  const int64_t bytes = numbers * int64_t(sizeof(S)) +
                        (n + 2 * pairs) * int64_t(sizeof(int64_t)) + n;
  char *memory = static_cast<char *>(allocated(bytes));
  if (place && memory) {
    f.h = reinterpret_cast<S *>(memory);
    if (f.dropped) f.dropped = f.h + 2 * state;
  }
  S *projected = reinterpret_cast<S *>(memory) + own;
  S *x_dropped = projected + (projects ? pairs * slot : 0);
  int64_t *active = reinterpret_cast<int64_t *>(x_dropped + (a.x_drop ? 4 * n * a.F : 0));
  int64_t *pair = active + n;
  const S **from = reinterpret_cast<const S **>(pair + pairs);
  uint8_t *parity = reinterpret_cast<uint8_t *>(from + pairs);
  const int64_t steps = memory == nullptr ? 0 : a.T;

  for (int64_t i = 0; memory != nullptr && i < n; ++i) {
    const int64_t row = rows[i];
    parity[i] = 0;
    for (int64_t block = 0; block < f.blocks; ++block) {
      const int64_t at = block * L, units = a.H - at;
      const V<S> zero = {};
      const V<S> h = a.h0 ? load(static_cast<const S *>(a.h0) + row * a.H + at, units) : zero;
      keep_h(f, 0, row, block, h);
      if (block < first || block >= last) continue;
      const V<S> c = a.c0 ? load(static_cast<const S *>(a.c0) + row * a.H + at, units) : zero;
      store(f.c + row * f.width + at, c);
      if (a.cs) store(static_cast<S *>(a.cs) + row * a.H + at, c, units);
    }
  }

  Step<S> s = {0, 0, rows, active, parity, nullptr, a.x_drop ? x_dropped : nullptr, n, first, last};
  for (int64_t t = 0; t < steps; ++t) {
    if (projects && t % together == 0) {
      int64_t found = 0;
      for (int64_t ahead = 0; ahead < least(together, a.T - t); ++ahead) {
        const int64_t at = a.reverse ? a.T - 1 - t - ahead : t + ahead;
        for (int64_t i = 0; i < n; ++i) {
          if (!counts(a, rows[i], t + ahead, a.T)) continue;
          pair[found] = ahead * n + i;
          from[found++] = static_cast<const S *>(a.x) + rows[i] * a.x_row + at * a.x_step;
        }
      }
      for (int64_t block = first; block < last; ++block) {
        in_blocks(found, KL_ROWS, [&](int64_t begin, int64_t some) {
#define KL_CALL(R) \
  project_block<S, R>(f, pair + begin, from + begin, projected, first, last, block)
          KL_BY_ROWS(KL_CALL, some)
#undef KL_CALL
        });
      }
    }
    s.t = t;
    s.at = a.reverse ? a.T - 1 - t : t;
    s.projected = projects ? projected + (t % together) * n * slot : nullptr;
    int64_t found = 0;
    for (int64_t i = 0; i < n; ++i) {
      const int64_t row = rows[i];
      if (counts(a, row, t, a.T)) {
        if (a.x_drop) {
          const S *x = static_cast<const S *>(a.x) + row * a.x_row + s.at * a.x_step;
          for (int64_t g = 0; g < 4; ++g) {
            const S *drop = static_cast<const S *>(a.x_drop) + (g * a.B + row) * a.F;
            for (int64_t k = 0; k < a.F; ++k) x_dropped[(g * n + i) * a.F + k] = x[k] * drop[k];
          }
        }
        active[found++] = i;
        continue;
      }
      const int64_t begin = first * L, units = least(last * L, a.H) - begin;
      if (a.hs)
        memcpy(static_cast<S *>(a.hs) + row * a.hs_row + t * a.hs_step + begin,
               f.h + (parity[i] * a.B + row) * f.width + begin, sizeof(S) * units);
      if (a.cs)
        memcpy(static_cast<S *>(a.cs) + ((t + 1) * a.B + row) * a.H + begin,
               f.c + row * f.width + begin, sizeof(S) * units);
    }
    forward_step(f, s, found);
    for (int64_t j = 0; j < found; ++j) parity[active[j]] ^= 1;
    if (place == nullptr || t + 1 == a.T) continue;
    for (int64_t j = 0; j < found; ++j) {
      const int64_t row = rows[active[j]], at = parity[active[j]];
      const S *h = f.h + (at * a.B + row) * f.width + first * L;
      send(f, *place, at, row, (last - first) * L, h, t + 1);
    }
    receive(f, *place, s, found, t + 1);
  }
  if (memory == nullptr && place) {  // it lets the others go
    for (int64_t i = 0; i < 2 * n; ++i)
      send<S>(f, *place, i % 2, rows[i / 2], (last - first) * L, nullptr, a.T);
  }
  for (int64_t i = 0; memory != nullptr && i < n; ++i) {
    const int64_t row = rows[i], begin = first * L, units = least(last * L, a.H) - begin;
    if (a.h_end)
      memcpy(static_cast<S *>(a.h_end) + row * a.H + begin,
             f.h + (parity[i] * a.B + row) * f.width + begin, sizeof(S) * units);
    if (a.c_end)
      memcpy(static_cast<S *>(a.c_end) + row * a.H + begin, f.c + row * f.width + begin,
             sizeof(S) * units);
  }
  free(memory);
  return memory == nullptr ? KL_NO_MEMORY : KL_OK;
}

template <class S>
struct ForwardCall {
  Forward<S> f;
  int part(const int64_t *rows, int64_t n, int64_t first, int64_t last, const Place *place) const {
    return forward_part(f, rows, n, first, last, place);
  }
};

template <class S>
int forward(const kl_forward *calls, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    if (!calls[i].fresh && !is_current<S>(calls[i])) return KL_STALE;
  Team<ForwardCall<S>> team;
  void *memory[MOST_CALLS] = {};
  int result = KL_OK;
  const kl_forward &one = calls[0];
  const int64_t blocks = parts_of(one.H, lanes<S>), width = blocks * lanes<S>;
  const double step = 4.0 * one.B * one.H * (one.F + one.H);
  const int64_t threads = least(one.threads, MOST_PARTS);
  const int64_t each = parts_of(parts_of(blocks, most(1, threads)) * lanes<S>, in_a_line<S>);
  S *lines = nullptr;
  kl_forward shared = one;
  if (count == 1 && split_of(one.B, one.T, blocks, step, threads).by_units) {
    const int64_t bytes = 2 * one.B * threads * each * LINE;
    lines = static_cast<S *>(allocated(bytes + (one.mask ? one.B * one.T : 0)));
    if (lines == nullptr) return KL_NO_MEMORY;
    memset(lines, 0, static_cast<size_t>(bytes));
    if (one.mask) {  // who writes to the caller's meanwhile must not have threads wait for ever
      uint8_t *mask = reinterpret_cast<uint8_t *>(lines) + bytes;
      for (int64_t b = 0; b < one.B; ++b)
        for (int64_t t = 0; t < one.T; ++t)
          mask[b * one.T + t] = one.mask[b * one.mask_row + t * one.mask_step];
      shared.mask = mask;
      shared.mask_row = one.T;
      shared.mask_step = 1;
    }
  }
  for (int64_t i = 0; i < count && result == KL_OK; ++i) {
    const kl_forward &a = lines ? shared : calls[i];
    const int64_t state = a.B * width;
    memory[i] = allocated((3 + 2 * a.h_drop_gates) * state * int64_t(sizeof(S)));
    if (memory[i] == nullptr) {
      result = KL_NO_MEMORY;
      break;
    }
    const Pack<S> pack(const_cast<void *>(a.pack), a.F, a.H);
    S *h = static_cast<S *>(memory[i]);
    S *dropped = a.h_drop_gates ? h + 3 * state : nullptr;
    S *c = h + 2 * state;
    team.call[i].f = {&a, blocks, width, pack.panels, pack.bias, h, dropped, c, lines, each};
  }
  if (result == KL_OK) result = run_team(team, calls, count, one.T, step, blocks);
  free(lines);
  for (int64_t i = 0; i < count; ++i) free(memory[i]);
  return result;
}

}  // namespace
}  // namespace KL_SET
