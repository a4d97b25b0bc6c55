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

#include "backward.h"
#include "forward.h"
#include "lstm.h"
#include "packs.h"
#include "sizes.h"

namespace KL_SET {

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
