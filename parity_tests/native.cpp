// The native engine alone, for the sanitizers: odd sizes, strides, masks, dropout, no memory behind
// the last element. Its results are held against Keras elsewhere; here each call must be clean, and
// the same numbers must come from one thread and from two.

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "lstm.h"

namespace {

// Two pthreads in place of OpenMP.
thread_local int number = 0;
thread_local int team = 1;

struct Job {
  void (*work)(void *);
  void *data;
  int number, team;
};

void *run(void *given) {
  Job *job = static_cast<Job *>(given);
  number = job->number;
  team = job->team;
  job->work(job->data);
  number = 0;
  team = 1;
  return nullptr;
}

void parallel(void (*work)(void *), void *data, unsigned threads, unsigned) {
  std::vector<Job> jobs;
  std::vector<pthread_t> others(threads);
  for (unsigned i = 0; i < threads; ++i) jobs.push_back({work, data, int(i), int(threads)});
  for (unsigned i = 1; i < threads; ++i) pthread_create(&others[i], nullptr, run, &jobs[i]);
  run(&jobs[0]);
  for (unsigned i = 1; i < threads; ++i) pthread_join(others[i], nullptr);
}

int thread_number() { return number; }
int thread_count() { return team; }

unsigned state = 1;

double random_number() {  // in -1 .. 1
  state = state * 1664525u + 1013904223u;
  return (state >> 8) / double(1 << 23) - 1;
}

template <class S>
std::vector<S> numbers(int64_t n, double size = 1) {
  std::vector<S> found(n);
  for (S &one : found) one = S(random_number() * size);
  return found;
}

template <class S>
S *at(std::vector<S> &v) {
  return v.empty() ? nullptr : v.data();
}

struct Choice {
  bool masked, reverse, sequences, state, training, bias, x_drop;
  int drop;  // gates of the recurrent mask: 0, 1, 4
  int64_t activation, gate;
};

template <class S>
struct Result {
  std::vector<S> hs, h, c, dz, dh, dc, d_x, d_ih, d_hh, d_bias;
};

template <class S>
Result<S> compute(int64_t B, int64_t T, int64_t F, int64_t H, const Choice &o, int64_t threads) {
  state = unsigned(B * 1000 + T * 100 + F * 10 + H);
  const double limit = 1 / sqrt(double(H));
  std::vector<S> w_ih = numbers<S>(4 * H * F, limit), w_hh = numbers<S>(4 * H * H, limit);
  std::vector<S> b_ih = numbers<S>(4 * H, limit), b_hh(4 * H);
  std::vector<S> x = numbers<S>(B * T * F), h0 = numbers<S>(B * H), c0 = numbers<S>(B * H);
  std::vector<S> x_drop = numbers<S>(4 * B * F), h_drop = numbers<S>(4 * B * H);
  std::vector<S> dy = numbers<S>(B * T * H);
  std::vector<uint8_t> mask(B * T);
  for (uint8_t &one : mask) one = random_number() > -0.3;

  Result<S> r;
  r.hs.resize(B * T * H);
  r.h.resize(B * H);
  r.c.resize(B * H);
  std::vector<S> gates(T * B * 4 * H), cs((T + 1) * B * H);
  kl_weights weights = {F, H, at(w_ih), at(w_hh), o.bias ? at(b_ih) : nullptr,
                        o.bias ? at(b_hh) : nullptr, threads};
  std::vector<char> pack(kl_pack_size(sizeof(S), F, H));
  kl_pack(sizeof(S), &weights, pack.data());

  kl_forward a = {};
  a.B = B, a.T = T, a.F = F, a.H = H;
  a.w_ih = weights.w_ih, a.w_hh = weights.w_hh, a.b_ih = weights.b_ih, a.b_hh = weights.b_hh;
  a.pack = pack.data();
  a.x = at(x), a.x_row = T * F, a.x_step = F;
  if (o.masked) a.mask = at(mask), a.mask_row = T, a.mask_step = 1;
  if (o.state) a.h0 = at(h0), a.c0 = at(c0);
  if (o.drop) a.h_drop = at(h_drop), a.h_drop_gates = o.drop;
  if (o.x_drop) a.x_drop = at(x_drop);
  if (o.sequences || o.training) a.hs = at(r.hs), a.hs_row = H, a.hs_step = B * H;
  if (o.training) a.gates = at(gates), a.cs = at(cs);
  a.h_end = at(r.h), a.c_end = at(r.c);
  a.activation = o.activation, a.recurrent_activation = o.gate;
  a.reverse = o.reverse, a.threads = threads;
  if (kl_run_forward(sizeof(S), &a, 1) != KL_OK) abort();

  w_ih[0] += 1;  // a pack that is old is found
  if (kl_run_forward(sizeof(S), &a, 1) != KL_STALE) abort();
  if (!o.training) return r;

  const bool by_gate = o.drop == 4;
  std::vector<char> back(kl_pack_backward_size(sizeof(S), H, by_gate));
  kl_pack_backward(sizeof(S), H, by_gate, at(w_hh), back.data());
  r.dz.assign(T * B * 4 * H, 0);
  r.dh = numbers<S>(B * H);
  r.dc = numbers<S>(B * H);
  kl_backward d = {};
  d.B = B, d.T = T, d.F = F, d.H = H;
  d.pack = back.data();
  d.mask = a.mask, d.mask_row = a.mask_row, d.mask_step = a.mask_step;
  d.gates = at(gates), d.cs = at(cs);
  d.h_drop = a.h_drop, d.h_drop_gates = a.h_drop_gates;
  if (o.sequences) d.dy = at(dy), d.dy_row = H, d.dy_step = B * H;
  d.dh = at(r.dh), d.dc = at(r.dc);
  d.activation = o.activation, d.recurrent_activation = o.gate;
  d.reverse = o.reverse, d.threads = threads;
  d.sums = o.drop == 0 && !o.x_drop;
  if (d.sums) {  // all steps at once
    r.d_x.assign(o.bias ? B * T * F : 0, 0);
    r.d_ih.assign(4 * H * F, 0);
    r.d_hh.assign(4 * H * H, 0);
    r.d_bias.assign(o.bias ? 4 * H : 0, 0);
    d.x = a.x, d.x_row = a.x_row, d.x_step = a.x_step;
    d.h0 = a.h0, d.hs = a.hs, d.w_ih = at(w_ih);
    d.d_x = at(r.d_x), d.d_ih = at(r.d_ih), d.d_hh = at(r.d_hh), d.d_bias = at(r.d_bias);
    d.stop = T, d.dz = at(r.dz);
    if (kl_run_backward(sizeof(S), &d, 1) != KL_OK) abort();
    return r;
  }
  for (int64_t stop = T; stop > 0; stop -= 2) {  // two steps at a time
    d.start = stop > 2 ? stop - 2 : 0, d.stop = stop;
    std::vector<S> dz((d.stop - d.start) * B * 4 * H);
    d.dz = at(dz);
    if (kl_run_backward(sizeof(S), &d, 1) != KL_OK) abort();
    if (!dz.empty()) memcpy(at(r.dz) + d.start * B * 4 * H, at(dz), dz.size() * sizeof(S));
  }
  return r;
}

template <class S>
double apart(const std::vector<S> &a, const std::vector<S> &b) {
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = fabs(double(a[i]) - double(b[i]));
    if (!(d <= most)) most = d;
  }
  return most;
}

template <class S>
int check(int of_large) {
  const int64_t sizes[][4] = {{0, 2, 1, 3}, {1, 1, 1, 1},  {1, 5, 2, 3},   {2, 3, 4, 5},
                              {3, 4, 1, 7}, {7, 2, 5, 17}, {5, 3, 3, 16}, {1, 3, 7, 300},
                              {9, 3, 11, 33}, {17, 5, 2, 19}};
  int cases = 0;
  for (const auto &z : sizes) {
    const int every = z[3] >= 300 ? of_large : 1;
    for (int bits = 0; bits < 64; bits += every) {
      Choice o = {};
      o.masked = bits & 1, o.reverse = bits & 2, o.sequences = bits & 4, o.state = bits & 8;
      o.training = bits & 16, o.bias = bits & 32;
      o.drop = bits % 3 == 0 ? 0 : bits % 3 == 1 ? 1 : 4;
      o.x_drop = (bits >> 1 ^ bits >> 4) & 1;
      o.activation = bits % KL_ACTIVATIONS, o.gate = (bits / 3) % KL_ACTIVATIONS;
      const Result<S> one = compute<S>(z[0], z[1], z[2], z[3], o, 1);
      const Result<S> two = compute<S>(z[0], z[1], z[2], z[3], o, 2);
      const double tolerance = sizeof(S) == 8 ? 1e-9 : 1e-2;
      const double found[] = {apart(one.hs, two.hs), apart(one.h, two.h),   apart(one.c, two.c),
                              apart(one.dz, two.dz), apart(one.dh, two.dh), apart(one.dc, two.dc),
                              apart(one.d_x, two.d_x), apart(one.d_ih, two.d_ih),
                              apart(one.d_hh, two.d_hh), apart(one.d_bias, two.d_bias)};
      for (double error : found) {
        if (!(error <= tolerance)) {
          printf("one thread and two differ by %g at B %ld T %ld F %ld H %ld, choice %d\n", error,
                 long(z[0]), long(z[1]), long(z[2]), long(z[3]), bits);
          return -1;
        }
      }
      ++cases;
    }
  }
  return cases;
}

}  // namespace

// Given n, the largest size is checked at every n-th choice.
int main(int, char **given) {
  kl_use_openmp(parallel, thread_number, thread_count);
  const int of_large = atoi(given[1]), single = check<float>(of_large),
            wide = check<double>(of_large);
  if (single < 0 || wide < 0) return 1;
  printf("%d cases\n", single + wide);
  return 0;
}
