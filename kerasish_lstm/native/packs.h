// Weights in panels, beside a copy of what they were made of: whether it is still so is compared.

#pragma once

#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "lstm.h"
#include "sizes.h"
#include "threads.h"
#include "vectors.h"

using kerasish_lstm::in_parallel;

namespace KL_SET {
namespace {

#ifdef KL_ALWAYS_SPLIT  // for tests of small sizes
const int64_t WORTH_PACKING = 0;
#else
const int64_t WORTH_PACKING = 1 << 18;  // weights
#endif

struct Head {
  int64_t bytes, wide, F, H, b_ih, b_hh, unused[2];
};

template <class S>
struct Pack {
  S *panels;  // (blocks, F + H, 4, lanes)
  S *bias;    // (blocks, 4, lanes)
  S *copy;    // w_ih, w_hh, b_ih, b_hh as they were
  int64_t size;

  Pack(void *memory, int64_t F, int64_t H) {
    const int64_t width = parts_of(H, lanes<S>) * 4 * lanes<S>;
    panels = reinterpret_cast<S *>(static_cast<char *>(memory) + sizeof(Head));
    bias = panels + width * (F + H);
    copy = bias + width;
    size = static_cast<int64_t>(sizeof(Head)) +
           (width * (F + H + 1) + 4 * H * (F + H + 2)) * static_cast<int64_t>(sizeof(S));
  }
};

// One block of panels from rows [g H + unit] of w, (4H, K): L by L elements at a time, since rows
// that lie a power of two apart would drive each other out of the cache.
template <class S>
void pack_panel(S *panel, const S *w, int64_t K, int64_t H, int64_t block) {
  const int64_t L = lanes<S>, first = block * L, units = least(L, H - first);
  S tile[L][L];
  for (int64_t g = 0; g < 4; ++g) {
    for (int64_t begin = 0; begin < K; begin += L) {
      for (int64_t u = 0; u < L; ++u) {
        const S *from = w + (g * H + first + u) * K + begin;
        store(tile[u], u < units ? load(from, K - begin) : V<S>{});
      }
      for (int64_t k = 0; k < least(L, K - begin); ++k) {
        S *to = panel + ((begin + k) * 4 + g) * L;
        for (int64_t u = 0; u < L; ++u) to[u] = tile[u][k];
      }
    }
  }
}

template <class S>
void pack_block(const kl_weights &a, const Pack<S> &pack, int64_t block) {
  const int64_t L = lanes<S>;
  const S *b_ih = static_cast<const S *>(a.b_ih), *b_hh = static_cast<const S *>(a.b_hh);
  S *panel = pack.panels + block * (a.F + a.H) * 4 * L;
  pack_panel(panel, static_cast<const S *>(a.w_ih), a.F, a.H, block);
  pack_panel(panel + a.F * 4 * L, static_cast<const S *>(a.w_hh), a.H, a.H, block);
  for (int64_t g = 0; g < 4; ++g) {
    for (int64_t u = 0; u < L; ++u) {
      const int64_t unit = block * L + u, at = g * a.H + unit;
      S sum = 0;
      if (unit < a.H && b_ih) sum += b_ih[at];
      if (unit < a.H && b_hh) sum += b_hh[at];
      pack.bias[(block * 4 + g) * L + u] = sum;
    }
  }
}

template <class S>
struct Packing {
  const kl_weights *a;
  Pack<S> pack;
};

template <class S>
void pack_part(void *data, int64_t thread, int64_t threads) {
  const Packing<S> &p = *static_cast<const Packing<S> *>(data);
  const kl_weights &a = *p.a;
  const int64_t blocks = parts_of(a.H, lanes<S>);
  const int64_t first = blocks * thread / threads, last = blocks * (thread + 1) / threads;
  for (int64_t block = first; block < last; ++block) pack_block(a, p.pack, block);
}

template <class S>
void copy_part(void *data, int64_t thread, int64_t threads) {
  const Packing<S> &p = *static_cast<const Packing<S> *>(data);
  const kl_weights &a = *p.a;
  const void *given[4] = {a.w_ih, a.w_hh, a.b_ih, a.b_hh};
  const int64_t sizes[4] = {4 * a.H * a.F, 4 * a.H * a.H, 4 * a.H, 4 * a.H};
  S *copy = p.pack.copy;
  for (int i = 0; i < 4; copy += sizes[i++]) {
    const int64_t from = sizes[i] * thread / threads, to = sizes[i] * (thread + 1) / threads;
    if (given[i] && to > from)
      memcpy(copy + from, static_cast<const S *>(given[i]) + from,
             static_cast<size_t>(to - from) * sizeof(S));
  }
}

// Ask for large pages where a pack is large: it is read as a whole at every step, and small pages,
// wherever they come to lie, are unlike in the cache and in the tables of addresses.
void prefer_large_pages(void *memory, int64_t bytes) {
#ifdef MADV_HUGEPAGE
  const uintptr_t page = 2 << 20, from = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t begin = (from + page - 1) & ~(page - 1);
  const uintptr_t end = (from + static_cast<uintptr_t>(bytes)) & ~(page - 1);
  if (end > begin) madvise(reinterpret_cast<void *>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

template <class S>
int pack_forward(const kl_weights &a, void *memory) {
  const Pack<S> pack(memory, a.F, a.H);
  prefer_large_pages(memory, pack.size);  // before anything is written to it
  const Head head = {KL_BYTES, sizeof(S), a.F, a.H, a.b_ih != nullptr, a.b_hh != nullptr, {0, 0}};
  memcpy(memory, &head, sizeof head);
  Packing<S> packing = {&a, pack};
  const int64_t threads = 4 * a.H * (a.F + a.H) >= WORTH_PACKING ? a.threads : 1;
  in_parallel(copy_part<S>, &packing, threads);
  // The panels are of the copy: what somebody writes to the weights meanwhile is found later.
  S *b_ih = pack.copy + 4 * a.H * (a.F + a.H), *b_hh = b_ih + 4 * a.H;
  const kl_weights copied = {a.F, a.H, pack.copy, pack.copy + 4 * a.H * a.F,
                             a.b_ih ? b_ih : nullptr, a.b_hh ? b_hh : nullptr, threads};
  packing.a = &copied;
  in_parallel(pack_part<S>, &packing, threads);
  return KL_OK;
}

struct Comparison {
  const char *left[4], *right[4];
  int64_t bytes[4];
  int64_t parts;
  int64_t differs;
};

void compare_part(void *data, int64_t thread, int64_t threads) {
  Comparison &c = *static_cast<Comparison *>(data);
  for (int64_t part = thread; part < c.parts; part += threads) {
    for (int i = 0; i < 4; ++i) {
      const int64_t from = c.bytes[i] * part / c.parts, to = c.bytes[i] * (part + 1) / c.parts;
      if (to > from && memcmp(c.left[i] + from, c.right[i] + from, static_cast<size_t>(to - from)))
        __atomic_store_n(&c.differs, 1, __ATOMIC_RELAXED);
    }
  }
}

// Whether a pack is of these weights, bit by bit.
template <class S>
bool is_current(const kl_forward &a) {
  const Head &head = *static_cast<const Head *>(a.pack);
  if (head.bytes != KL_BYTES || head.wide != sizeof(S) || head.F != a.F || head.H != a.H ||
      head.b_ih != (a.b_ih != nullptr) || head.b_hh != (a.b_hh != nullptr))
    return false;
  const Pack<S> pack(const_cast<void *>(a.pack), a.F, a.H);
  const int64_t one = static_cast<int64_t>(sizeof(S)) * 4 * a.H;
  const S *copy = pack.copy;
  Comparison c = {};
  const void *given[4] = {a.w_ih, a.w_hh, a.b_ih, a.b_hh};
  const int64_t sizes[4] = {a.F, a.H, 1, 1};
  for (int i = 0; i < 4; ++i) {
    c.left[i] = static_cast<const char *>(given[i]);
    c.right[i] = reinterpret_cast<const char *>(copy);
    c.bytes[i] = given[i] == nullptr ? 0 : one * sizes[i];
    copy += 4 * a.H * sizes[i];
  }
  c.parts = one * (a.F + a.H) < 1 << 20 ? 1 : most(1, a.threads);
  in_parallel(compare_part, &c, c.parts);
  return c.differs == 0;
}

// w_hh (4H, H) by output unit: (groups, 4H, 4, lanes), or by gate (blocks, H, 4, lanes).
template <class S>
int pack_recurrent(int64_t H, bool by_gate, const S *w, S *to) {
  const int64_t L = lanes<S>;
  const int64_t pieces = by_gate ? parts_of(H, L) : parts_of(H, 4 * L);
  const int64_t K = by_gate ? H : 4 * H;
  for (int64_t piece = 0; piece < pieces; ++piece) {
    for (int64_t k = 0; k < K; ++k) {
      for (int64_t v = 0; v < 4; ++v, to += L) {
        const S *row = w + (by_gate ? v * H + k : k) * H;
        const int64_t unit = by_gate ? piece * L : (piece * 4 + v) * L;
        store(to, unit < H ? load(row + unit, H - unit) : V<S>{});
      }
    }
  }
  return KL_OK;
}

}  // namespace
}  // namespace KL_SET
