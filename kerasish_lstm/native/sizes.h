// Sizes, and the memory of a call.

#pragma once

#include <stdint.h>
#include <stdlib.h>

namespace KL_SET {
namespace {

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
int64_t parts_of(int64_t n, int64_t size) { return (n + size - 1) / size; }

void *allocated(int64_t bytes) {
  void *memory = nullptr;
  if (posix_memalign(&memory, 64, static_cast<size_t>(most(bytes, 64))) != 0) return nullptr;
  return memory;
}

}  // namespace
}  // namespace KL_SET
