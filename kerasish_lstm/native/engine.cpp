// The recurrence and its backward, for one instruction set.
//
// Weights lie in panels: of one vector of units the four gates, for each k of [x, h]. So the four
// pre-activations of these units and of up to KL_ROWS rows are summed in registers, and at
// inference no more of them than these is ever in memory. (Under a dropout mask for each gate it is
// one gate of two vectors of units at a time.) A row that is masked at a step is left out of its
// blocks: it costs nothing.
//
// Nothing here is a template of the standard library's, whose code the linker could take from a
// file that is compiled for another processor.

#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "lstm.h"
#include "threads.h"
#include "vectors.h"

using kerasish_lstm::Barrier;
using kerasish_lstm::in_parallel;
using kerasish_lstm::pause;

namespace KL_SET {
namespace {

const int TILE = KL_ROWS + 2;         // the most rows of a product by gate
const int64_t FEW_ROWS = 8;           // of a thread: below, x K is one product over many steps
const int64_t PROJECTED = 1 << 18;    // bytes of x K at a time
const int64_t ROWS_A_THREAD = 4;      // from here on the batch is what is split
const int64_t SHARED_ROWS = 32;       // the most of which every thread has an h of its own
#ifdef KL_ALWAYS_SPLIT  // for tests of small sizes
const double WORTH_A_THREAD = 0, WORTH_A_BARRIER = 0;
const int64_t WORTH_PACKING = 0;
#else
const double WORTH_A_THREAD = 4e5;     // multiplications of a call
const double WORTH_A_BARRIER = 8e3;    // multiplications of a step and thread
const int64_t WORTH_PACKING = 1 << 18;  // weights
#endif

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t parts_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

void *allocated(int64_t bytes) {
  void *memory = nullptr;
  if (posix_memalign(&memory, 64, static_cast<size_t>(most(bytes, 64))) != 0) return nullptr;
  return memory;
}

// Activations that are usual are known where it is compiled: FUNCTION<S, activation, recurrent
// activation>, of any where they are others.
const int64_t KL_ANY = -1;
#define KL_BY_ACTIVATIONS(FUNCTION, S, A)                                  \
  ((A).activation != KL_TANH             ? FUNCTION<S, KL_ANY, KL_ANY>     \
   : (A).recurrent_activation == KL_SIGMOID                                \
       ? FUNCTION<S, KL_TANH, KL_SIGMOID>                                  \
   : (A).recurrent_activation == KL_HARD_SIGMOID                           \
       ? FUNCTION<S, KL_TANH, KL_HARD_SIGMOID>                             \
   : (A).recurrent_activation == KL_HARD_SIGMOID_V2                        \
       ? FUNCTION<S, KL_TANH, KL_HARD_SIGMOID_V2>                          \
       : FUNCTION<S, KL_ANY, KL_ANY>)

// Products

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

// Packs

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

// Parts of a call: rows for one thread, or panels of all rows for each

int64_t *by_length(const uint8_t *mask, int64_t mask_row, int64_t mask_step, int64_t B, int64_t T,
                   int64_t parts, int64_t *begin) {
  // Rows in an order such that those from begin[i] to begin[i + 1] are part i, the work dealt out.
  int64_t *rows = static_cast<int64_t *>(allocated(sizeof(int64_t) * most(1, 3 * B)));
  if (rows == nullptr) return nullptr;
  for (int64_t i = 0; i <= parts; ++i) begin[i] = B * i / parts;
  if (mask == nullptr || parts == 1) {
    for (int64_t b = 0; b < B; ++b) rows[b] = b;
    return rows;
  }
  int64_t *steps = rows + B, *order = rows + 2 * B;
  int64_t *place = static_cast<int64_t *>(allocated(sizeof(int64_t) * (T + 2)));
  if (place == nullptr) {
    free(rows);
    return nullptr;
  }
  memset(place, 0, sizeof(int64_t) * (T + 2));
  for (int64_t b = 0; b < B; ++b) {
    steps[b] = 0;
    for (int64_t t = 0; t < T; ++t) steps[b] += mask[b * mask_row + t * mask_step] != 0;
    ++place[T - steps[b] + 1];
  }
  for (int64_t n = 0; n <= T; ++n) place[n + 1] += place[n];  // the longest first
  for (int64_t b = 0; b < B; ++b) order[place[T - steps[b]]++] = b;
  free(place);
  int64_t *filled = static_cast<int64_t *>(allocated(sizeof(int64_t) * parts));
  if (filled == nullptr) {
    free(rows);
    return nullptr;
  }
  for (int64_t i = 0; i < parts; ++i) filled[i] = 0;
  for (int64_t n = 0, part = 0, way = 1; n < B;) {  // to and fro
    if (begin[part] + filled[part] < begin[part + 1])
      rows[begin[part] + filled[part]++] = order[n++];
    part += way;
    if (part < 0 || part == parts) {
      way = -way;
      part += way;
    }
  }
  free(filled);
  return rows;
}

// How many threads, and what they share.
struct Split {
  int64_t threads;
  bool by_units;
};

Split split_of(int64_t B, int64_t T, int64_t units_apart, double step, int64_t threads) {
  if (threads <= 1 || B < 1 || step * static_cast<double>(T) < WORTH_A_THREAD) return {1, false};
  if (B >= ROWS_A_THREAD * threads) return {threads, false};
  const bool counted = T < INT32_MAX;  // see step_of
  if (units_apart >= threads && B <= SHARED_ROWS && counted &&
      step >= WORTH_A_BARRIER * static_cast<double>(threads))
    return {threads, true};
  return {B >= 2 ? least(B, threads) : 1, false};
}

// Forward

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

template <class S>
bool counts(const S &a, int64_t row, int64_t t, int64_t T) {
  const int64_t at = a.reverse ? T - 1 - t : t;
  return a.mask == nullptr || a.mask[row * a.mask_row + at * a.mask_step] != 0;
}

// A thread's place among those that share the units of a call.
struct Place {
  Barrier *barrier;
  int64_t thread, threads;
};

// How threads that share the units exchange h: each has an h of its own, and sends its units of it
// in cache lines to the others. A line ends with the number of its step, which is written last and
// read first: so one journey from core to core brings both the news and the numbers. A line is used
// again two steps later, when all have read it: they have sent the step between.
const int64_t LINE = 64;

template <class S>
constexpr int64_t in_a_line = LINE / sizeof(S) - 1;

template <class S>
S *lines_of(const Forward<S> &f, const Place &place, int64_t thread, int64_t parity, int64_t row) {
  const int64_t at = ((parity * f.a->B + row) * place.threads + thread) * f.lines_each;
  return f.lines + at * LINE / int64_t(sizeof(S));
}

template <class S>
auto step_of(S *line) {
  typedef typename Vector<S>::step step;
  return reinterpret_cast<step *>(line + in_a_line<S>);
}

// h, or null for the step alone, of one row.
template <class S>
void send(const Forward<S> &f, const Place &place, int64_t parity, int64_t row, int64_t units,
          const S *h, int64_t step) {
  S *line = lines_of(f, place, place.thread, parity, row);
  for (int64_t at = 0; at < units; at += in_a_line<S>, line += in_a_line<S> + 1) {
    if (h) memcpy(line, h + at, least(in_a_line<S>, units - at) * sizeof(S));
    __atomic_store_n(step_of(line), step, __ATOMIC_RELEASE);
  }
}

template <class S>
bool is_there(const Forward<S> &f, const Place &place, const Step<S> &s, int64_t active,
              int64_t thread, int64_t units, int64_t step) {
  bool all_lines = true;  // asked for side by side
  for (int64_t j = 0; j < active; ++j) {
    const int64_t i = s.active[j];
    S *line = lines_of(f, place, thread, s.parity[i], s.rows[i]);
    for (int64_t at = 0; at < units; at += in_a_line<S>, line += in_a_line<S> + 1)
      all_lines &= __atomic_load_n(step_of(line), __ATOMIC_ACQUIRE) >= step;
  }
  return all_lines;
}

// The h of the other threads' units, once it is there.
template <class S>
void receive(const Forward<S> &f, const Place &place, const Step<S> &s, int64_t active,
             int64_t step) {
  const int64_t L = lanes<S>;
  for (int64_t apart = 1; apart < place.threads; ++apart) {
    const int64_t thread = (place.thread + apart) % place.threads;
    const int64_t first = f.blocks * thread / place.threads;
    const int64_t last = f.blocks * (thread + 1) / place.threads, units = (last - first) * L;
    for (int64_t spins = 0; !is_there(f, place, s, active, thread, units, step); ++spins)
      pause(spins);
    for (int64_t j = 0; j < active; ++j) {
      const int64_t i = s.active[j], row = s.rows[i];
      const S *line = lines_of(f, place, thread, s.parity[i], row);
      S *h = f.h + (s.parity[i] * f.a->B + row) * f.width + first * L;
      for (int64_t at = 0; at < units; at += in_a_line<S>, line += in_a_line<S> + 1)
        memcpy(h + at, line, least(in_a_line<S>, units - at) * sizeof(S));
      for (int64_t block = first; f.dropped && block < last; ++block)
        keep_h(f, s.parity[i], row, block, load(h + (block - first) * L));
    }
  }
}

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

// Both ways: what the threads of a call share

const int64_t MOST_CALLS = 2;
const int64_t MOST_PARTS = 256;

template <class Call>
struct Team {
  Call call[MOST_CALLS];
  int64_t count;               // of calls
  int64_t *rows[MOST_CALLS];   // in the order of their parts
  int64_t begin[MOST_CALLS][MOST_PARTS + 1];
  int64_t parts;               // of each call
  int64_t wanted;              // threads
  bool by_units;
  int64_t pieces;              // what is split by units: of one call
  Barrier barrier;
  int64_t failed;
};

template <class Call>
void team_work(void *data, int64_t thread, int64_t threads) {
  Team<Call> &team = *static_cast<Team<Call> *>(data);
  int result = KL_OK;
  if (team.by_units) {
    const Call &call = team.call[0];
    if (threads != team.wanted) {  // they would wait for ever
      if (thread == 0)
        result = call.part(team.rows[0], team.begin[0][1], 0, team.pieces, nullptr);
    } else {
      const int64_t first = team.pieces * thread / threads;
      const int64_t last = team.pieces * (thread + 1) / threads;
      const Place place = {&team.barrier, thread, threads};
      result = call.part(team.rows[0], team.begin[0][1], first, last, &place);
    }
  } else {
    for (int64_t i = thread; i < team.count * team.parts; i += threads) {
      const int64_t which = i % team.count, part = i / team.count;
      const int64_t begin = team.begin[which][part], n = team.begin[which][part + 1] - begin;
      if (n == 0) continue;
      const int now = team.call[which].part(team.rows[which] + begin, n, 0, team.pieces, nullptr);
      if (now != KL_OK) result = now;
    }
  }
  if (result != KL_OK) __atomic_store_n(&team.failed, result, __ATOMIC_RELAXED);
}

// Split, run, and give back the rows' memory.
template <class Call, class A>
int run_team(Team<Call> &team, const A *calls, int64_t count, int64_t steps, double step,
             int64_t pieces) {
  const A &a = calls[0];
  Split split = split_of(a.B, steps, pieces, step, least(a.threads, MOST_PARTS));
  if (count > 1) {  // a direction each, and then the batch
    const int64_t each = most(1, least(a.threads, MOST_PARTS) / count);
    const Split own = split_of(a.B, steps, 0, step, each);
    const bool worth = step * static_cast<double>(steps) * double(count) >= WORTH_A_THREAD;
    split = {worth ? least(a.threads, own.threads * count) : 1, false};
    team.parts = own.threads;
  } else {
    team.parts = split.by_units ? 1 : split.threads;
  }
  team.count = count;
  team.wanted = split.threads;
  team.by_units = split.by_units;
  team.pieces = pieces;
  team.barrier.threads = split.threads;
  team.barrier.come = team.barrier.round = 0;
  team.failed = KL_OK;
  int result = KL_OK;
  for (int64_t i = 0; i < MOST_CALLS; ++i) team.rows[i] = nullptr;
  for (int64_t i = 0; i < count && result == KL_OK; ++i) {
    team.rows[i] = by_length(calls[i].mask, calls[i].mask_row, calls[i].mask_step, calls[i].B,
                             calls[i].T, team.parts, team.begin[i]);
    if (team.rows[i] == nullptr) result = KL_NO_MEMORY;
  }
  if (result == KL_OK) {
    in_parallel(team_work<Call>, &team, split.threads);
    result = static_cast<int>(team.failed);
  }
  for (int64_t i = 0; i < count; ++i) free(team.rows[i]);
  return result;
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

// Backward

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
  return result;
}

}  // namespace

int64_t pack_size(int64_t wide, int64_t F, int64_t H) {
  return wide == 8 ? Pack<double>(nullptr, F, H).size : Pack<float>(nullptr, F, H).size;
}

int pack(int64_t wide, const kl_weights *weights, void *to) {
  return wide == 8 ? pack_forward<double>(*weights, to) : pack_forward<float>(*weights, to);
}

int64_t pack_backward_size(int64_t wide, int64_t H, int64_t by_gate) {
  const int64_t L = KL_BYTES / wide;
  return wide * 4 * H * (by_gate ? parts_of(H, L) * L : parts_of(H, 4 * L) * 4 * L);
}

int pack_backward(int64_t wide, int64_t H, int64_t by_gate, const void *w, void *to) {
  prefer_large_pages(to, pack_backward_size(wide, H, by_gate));
  return wide == 8 ? pack_recurrent<double>(H, by_gate != 0, static_cast<const double *>(w),
                                            static_cast<double *>(to))
                   : pack_recurrent<float>(H, by_gate != 0, static_cast<const float *>(w),
                                           static_cast<float *>(to));
}

int run_forward(int64_t wide, const kl_forward *calls, int64_t count) {
  return wide == 8 ? forward<double>(calls, count) : forward<float>(calls, count);
}

int run_backward(int64_t wide, const kl_backward *calls, int64_t count) {
  return wide == 8 ? backward<double>(calls, count) : backward<float>(calls, count);
}

}  // namespace KL_SET
