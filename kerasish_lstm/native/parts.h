// The parts of a call and the threads that do them: some rows each, or some panels of all rows.

#pragma once

#include <stdlib.h>
#include <string.h>

#include "lstm.h"
#include "sizes.h"
#include "threads.h"

using kerasish_lstm::Barrier;
using kerasish_lstm::DenormalsAreZero;
using kerasish_lstm::in_parallel;

namespace KL_SET {
namespace {

const int64_t ROWS_A_THREAD = 4;  // from here on the batch is what is split
const int64_t SHARED_ROWS = 32;   // the most of which every thread has an h of its own
#ifdef KL_ALWAYS_SPLIT  // for tests of small sizes
const double WORTH_A_THREAD = 0, WORTH_A_BARRIER = 0;
#else
const double WORTH_A_THREAD = 4e5;   // multiplications of a call
const double WORTH_A_BARRIER = 8e3;  // multiplications of a step and thread
#endif

// Rows in an order such that those from begin[i] to begin[i + 1] are part i, the work dealt out.
int64_t *by_length(const uint8_t *mask, int64_t mask_row, int64_t mask_step, int64_t B, int64_t T,
                   int64_t parts, int64_t *begin) {
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

// Whether a step of a row is there.
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

// What the threads of a call share.

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
  int64_t denormal;            // whether a result was, and became zero
};

template <class Call>
void team_work(void *data, int64_t thread, int64_t threads) {
  const DenormalsAreZero here;
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
  if (here.have_been()) __atomic_store_n(&team.denormal, 1, __ATOMIC_RELAXED);
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
  team.denormal = 0;
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

}  // namespace
}  // namespace KL_SET
