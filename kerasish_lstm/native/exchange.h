// h from thread to thread, where they share the units of a call.

#pragma once

#include <string.h>

#include "parts.h"
#include "sizes.h"
#include "step.h"
#include "threads.h"

using kerasish_lstm::pause;

namespace KL_SET {
namespace {

// Each thread has an h of its own, and sends its units of it in cache lines to the others. A line
// ends with the number of its step, which is written last and read first: so one journey from core
// to core brings both the news and the numbers. A line is used again two steps later, when all have
// read it: they have sent the step between.
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

}  // namespace
}  // namespace KL_SET
