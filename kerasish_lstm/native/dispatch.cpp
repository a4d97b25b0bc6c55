// The interface: which instruction set, which precision, which threads.

#include <string.h>

#include <atomic>
#include <string>
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#include <sched.h>
#endif

#include "lstm.h"
#include "threads.h"

#define KL_DECLARE(SET)                                                                \
  namespace SET {                                                                      \
  int64_t pack_size(int64_t wide, int64_t F, int64_t H);                               \
  int pack(int64_t wide, const kl_weights *weights, void *pack);                       \
  int64_t pack_backward_size(int64_t wide, int64_t H, int64_t by_gate);                \
  int pack_backward(int64_t wide, int64_t H, int64_t by_gate, const void *w, void *p); \
  int run_forward(int64_t wide, const kl_forward *calls, int64_t count);               \
  int run_backward(int64_t wide, const kl_backward *calls, int64_t count);             \
  }

KL_DECLARE(kl_base)
#ifdef KL_X86
KL_DECLARE(kl_avx2)
KL_DECLARE(kl_avx512)
#endif

namespace {

struct Set {
  const char *name;
  bool (*here)();
  int64_t (*pack_size)(int64_t, int64_t, int64_t);
  int (*pack)(int64_t, const kl_weights *, void *);
  int64_t (*pack_backward_size)(int64_t, int64_t, int64_t);
  int (*pack_backward)(int64_t, int64_t, int64_t, const void *, void *);
  int (*run_forward)(int64_t, const kl_forward *, int64_t);
  int (*run_backward)(int64_t, const kl_backward *, int64_t);
};

#define KL_ENTRY(NAME, HERE, SET)                                                       \
  {                                                                                     \
    NAME, HERE, SET::pack_size, SET::pack, SET::pack_backward_size, SET::pack_backward, \
        SET::run_forward, SET::run_backward                                             \
  }

bool always() { return true; }
#ifdef KL_X86
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
}
#endif

const Set sets[] = {
#ifdef KL_X86
    KL_ENTRY("avx512", has_avx512, kl_avx512),
    KL_ENTRY("avx2", has_avx2, kl_avx2),
#endif
    KL_ENTRY("base", always, kl_base),
};

const Set *best() {
  for (const Set &set : sets)
    if (set.here()) return &set;
  return nullptr;
}

std::atomic<const Set *> chosen{best()};

std::string names() {
  std::string found;
  for (const Set &set : sets)
    if (set.here()) found += (found.empty() ? "" : " ") + std::string(set.name);
  return found;
}

const Set &now() { return *chosen.load(std::memory_order_relaxed); }

void (*openmp_parallel)(void (*)(void *), void *, unsigned, unsigned) = nullptr;
int (*openmp_thread)() = nullptr;
int (*openmp_threads)() = nullptr;

// What a thread does with numbers smaller than the smallest normal one.
#if defined(__x86_64__)
const uint64_t DENORMALS_ZERO = 0x8040;  // of results, and of operands
const uint64_t UNDERFLOW = 0x10;
uint64_t get_controls() { return _mm_getcsr(); }
void set_controls(uint64_t value) { _mm_setcsr(static_cast<unsigned>(value)); }
uint64_t get_flags() { return get_controls() & UNDERFLOW; }
void set_flags(uint64_t value) { set_controls((get_controls() & ~UNDERFLOW) | value); }
#elif defined(__aarch64__)
const uint64_t DENORMALS_ZERO = 1 << 24;
const uint64_t UNDERFLOW = 1 << 3;
uint64_t get_controls() {
  uint64_t value;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(value) : : "memory");
  return value;
}
void set_controls(uint64_t value) {
  __asm__ __volatile__("msr fpcr, %0" : : "r"(value) : "memory");
}
uint64_t get_status() {
  uint64_t value;
  __asm__ __volatile__("mrs %0, fpsr" : "=r"(value) : : "memory");
  return value;
}
uint64_t get_flags() { return get_status() & UNDERFLOW; }
void set_flags(uint64_t value) {
  value |= get_status() & ~UNDERFLOW;
  __asm__ __volatile__("msr fpsr, %0" : : "r"(value) : "memory");
}
#else
const uint64_t DENORMALS_ZERO = 0;
uint64_t get_controls() { return 0; }
void set_controls(uint64_t) {}
uint64_t get_flags() { return 0; }
void set_flags(uint64_t) {}
#endif

// Denormals as `before` has them, the other controls as they are.
void restore(uint64_t before) {
  set_controls((get_controls() & ~DENORMALS_ZERO) | (before & DENORMALS_ZERO));
}

// Of a thread, from kl_denormals_are_zero(threads, 1) to kl_denormals_are_zero(threads, 0).
thread_local bool is_on = false;
thread_local uint64_t before_on = 0;

void switch_on(void *, int64_t, int64_t) {
  if (!is_on) before_on = get_controls();
  is_on = true;
  set_controls(get_controls() | DENORMALS_ZERO);
}

// A thread that came in between has its caller's controls as they were when it came.
void switch_off(void *callers, int64_t, int64_t) {
  restore(is_on ? before_on : *static_cast<const uint64_t *>(callers));
  is_on = false;
}

struct Team {
  kerasish_lstm::Work work;
  void *data;
};

void member(void *data) {
  const Team *team = static_cast<const Team *>(data);
  team->work(team->data, openmp_thread(), openmp_threads());
}

}  // namespace

void kerasish_lstm::pause(int64_t spins) {
#if defined(__unix__) || defined(__APPLE__)
  if (spins > 4000) {
    sched_yield();
    return;
  }
#endif
#if defined(__x86_64__) || defined(__i386__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

void kerasish_lstm::Barrier::wait() {
  if (threads == 1) return;
  const int64_t mine = __atomic_load_n(&round, __ATOMIC_RELAXED);
  if (__atomic_add_fetch(&come, 1, __ATOMIC_ACQ_REL) == threads) {
    __atomic_store_n(&come, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&round, mine + 1, __ATOMIC_RELEASE);
    return;
  }
  for (int64_t spins = 0; __atomic_load_n(&round, __ATOMIC_ACQUIRE) == mine; ++spins) pause(spins);
}

kerasish_lstm::DenormalsAreZero::DenormalsAreZero()
    : controls_before(get_controls()), flags_before(get_flags()) {
  set_controls(controls_before | DENORMALS_ZERO);
  set_flags(0);
}

kerasish_lstm::DenormalsAreZero::~DenormalsAreZero() {
  set_flags(get_flags() | flags_before);
  restore(controls_before);
}

bool kerasish_lstm::DenormalsAreZero::have_been() const { return get_flags() != 0; }

void kerasish_lstm::in_parallel(Work work, void *data, int64_t threads) {
  if (threads <= 1 || openmp_parallel == nullptr) {
    work(data, 0, 1);
    return;
  }
  Team team = {work, data};
  openmp_parallel(member, &team, static_cast<unsigned>(threads), 0);
}

extern "C" {

int64_t kl_interface(void) { return KL_INTERFACE; }

void kl_use_openmp(void (*parallel)(void (*)(void *), void *, unsigned, unsigned),
                   int (*thread)(void), int (*threads)(void)) {
  openmp_parallel = parallel;
  openmp_thread = thread;
  openmp_threads = threads;
}

const char *kl_instruction_sets(void) {
  static const std::string found = names();
  return found.c_str();
}

int kl_choose(const char *instruction_set) {
  for (const Set &set : sets) {
    if (strcmp(set.name, instruction_set) == 0 && set.here()) {
      chosen.store(&set);
      return 1;
    }
  }
  return 0;
}

const char *kl_chosen(void) { return now().name; }

int64_t kl_pack_size(int64_t wide, int64_t F, int64_t H) { return now().pack_size(wide, F, H); }

int kl_pack(int64_t wide, const kl_weights *weights, void *pack) {
  return now().pack(wide, weights, pack);
}

int64_t kl_pack_backward_size(int64_t wide, int64_t H, int64_t by_gate) {
  return now().pack_backward_size(wide, H, by_gate);
}

int kl_pack_backward(int64_t wide, int64_t H, int64_t by_gate, const void *w_hh, void *pack) {
  return now().pack_backward(wide, H, by_gate, w_hh, pack);
}

int kl_run_forward(int64_t wide, const kl_forward *calls, int64_t count) {
  return now().run_forward(wide, calls, count);
}

int kl_run_backward(int64_t wide, const kl_backward *calls, int64_t count) {
  return now().run_backward(wide, calls, count);
}

void kl_denormals_are_zero(int64_t threads, int64_t on) {
  uint64_t callers = before_on;
  if (on || is_on) kerasish_lstm::in_parallel(on ? switch_on : switch_off, &callers, threads);
}

}  // extern "C"
