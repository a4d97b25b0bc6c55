// Work on torch's OpenMP threads, and a barrier among them.

#pragma once

#include <stdint.h>

namespace kerasish_lstm {

// All threads wait until the last has come. It gives the processor away where that takes long.
// (Its code is not here: what is inline could be taken from a file of another instruction set.)
struct alignas(64) Barrier {
  int64_t threads;
  alignas(64) int64_t come;
  alignas(64) int64_t round;

  void wait();
};

// While it lives, numbers smaller than the smallest normal one count as zero in this thread. A
// gradient that vanishes over many steps passes through them, and on many processors each such
// number costs as much as a hundred others.
class DenormalsAreZero {
 public:
  __attribute__((noinline)) DenormalsAreZero();
  __attribute__((noinline)) ~DenormalsAreZero();
  __attribute__((noinline)) bool have_been() const;  // results, and not for their operands alone

 private:
  const uint64_t controls_before, flags_before;
};

// One turn of waiting in a loop, the processor given away after many.
void pause(int64_t spins);

// work(data, thread, of how many), on at most `threads` of them, all at once.
typedef void (*Work)(void *data, int64_t thread, int64_t threads);
void in_parallel(Work work, void *data, int64_t threads);

}  // namespace kerasish_lstm
