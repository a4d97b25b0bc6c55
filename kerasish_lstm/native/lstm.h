/* The native engine's C interface: raw pointers, no torch, no Python.

   One step, with gates i, f, g, o (Keras 3.15.1, LSTMCell.call):

       i, f, g, o = split(x_t K + h R + b, 4)
       c' = s(f) * c + s(i) * a(g)
       h' = s(o) * a(c')

   Strides are in elements, and the last axis always has stride 1. A null pointer means that there
   is none. Every field has 8 bytes, so that a ctypes.Structure of int64 fits.

   "Step t" is the t-th that is processed: where reverse is 1 it reads x and mask at T - 1 - t. */

#ifndef KERASISH_LSTM_H
#define KERASISH_LSTM_H

#include <stdint.h>

#if defined(__GNUC__)
#define KL_API __attribute__((visibility("default")))
#else
#define KL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised with every change of what stands here, so that no caller takes a library of another one. */
enum { KL_INTERFACE = 4 };

/* Activations, by number. */
enum {
  KL_LINEAR,
  KL_TANH,
  KL_SIGMOID,
  KL_RELU,
  KL_SOFTSIGN,
  KL_HARD_SIGMOID,    /* Keras 3: relu6(x + 3) / 6 */
  KL_HARD_SIGMOID_V2, /* Keras 1 and 2: clip(0.2 x + 0.5, 0, 1) */
  KL_ACTIVATIONS
};

/* What a call returns. */
enum { KL_OK, KL_STALE, KL_NO_MEMORY, KL_DENORMAL };

/* Weights as torch.nn.LSTM has them: w_ih (4H, F), w_hh (4H, H), biases (4H,) or null. */
typedef struct {
  int64_t F, H;
  const void *w_ih, *w_hh, *b_ih, *b_hh;
  int64_t threads;
} kl_weights;

typedef struct {
  int64_t B, T, F, H;
  const void *w_ih, *w_hh, *b_ih, *b_hh;
  const void *pack; /* of these weights, by kl_pack */
  int64_t fresh;    /* whether it was made for this call: it is not compared */
  const void *x;    /* (B, T, F) */
  int64_t x_row, x_step;
  const uint8_t *mask; /* (B, T), 1 where a step counts */
  int64_t mask_row, mask_step;
  const void *h0, *c0;     /* (B, H), contiguous; null: zeros */
  const void *x_drop;      /* (4, B, F): multiplies x, another for each gate */
  const void *h_drop;      /* (h_drop_gates, B, H): multiplies h before R */
  int64_t h_drop_gates;    /* 1: the same for all gates; 4: one each */
  void *hs;                /* h after step t, for each t */
  int64_t hs_row, hs_step; /* a stride may be negative */
  void *gates;             /* (T, B, 4H): i f g o after their activations, for the backward */
  void *cs;                /* (T + 1, B, H): c0, then c after each step, for the backward */
  void *h_end, *c_end;     /* (B, H), no part of h0 and c0 */
  int64_t activation, recurrent_activation;
  int64_t reverse;
  int64_t threads;
} kl_forward;

/* Steps stop - 1 down to start, of which dz is wanted. What follows from dz are matrix products, for
   a library of products; but where a call of one takes longer than they do, sums asks for them here,
   without dropout masks and dz_row. */
typedef struct {
  int64_t B, T, F, H, start, stop;
  const void *pack; /* of w_hh, by kl_pack_backward */
  const uint8_t *mask;
  int64_t mask_row, mask_step;
  const void *gates, *cs; /* as the forward left them */
  const void *h_drop;
  int64_t h_drop_gates;
  const void *dy; /* the gradient of hs */
  int64_t dy_row, dy_step;
  void *dh, *dc;         /* (B, H): those of the state after step stop - 1, then before start */
  void *dz;              /* (rows, 4H): of x K + h R + b */
  const int64_t *dz_row; /* (stop - start, B): which row; null: (t - start) B + b */
  int64_t sums;          /* whether to add up what follows, where it is not null */
  const void *x, *h0, *hs, *w_ih; /* hs (T, B, H) as the forward left it */
  int64_t x_row, x_step;
  void *d_x; /* (B, T, F), to which is added, as to the next three */
  void *d_ih, *d_hh, *d_bias; /* (4H, F), (4H, H), (4H,) */
  int64_t activation, recurrent_activation;
  int64_t reverse;
  int64_t threads;
} kl_backward;

KL_API int64_t kl_interface(void);

/* torch's OpenMP, by pointer, so that its threads are ours: GOMP_parallel, omp_get_thread_num and
   omp_get_num_threads. Without it one thread works. */
KL_API void kl_use_openmp(void (*parallel)(void (*)(void *), void *, unsigned, unsigned),
                          int (*thread)(void), int (*threads)(void));

/* The instruction sets that this build and this processor have, best first: "avx512 avx2 base". */
KL_API const char *kl_instruction_sets(void);

/* Choose one of them, for all calls; 0 where it is not there. The best is chosen at first. */
KL_API int kl_choose(const char *instruction_set);
KL_API const char *kl_chosen(void);

/* wide: 8 for float64, 4 for float32. Sizes in bytes. A pack has a copy of its weights, with which
   kl_run_forward compares them: KL_STALE where they have changed in whatever way. */
KL_API int64_t kl_pack_size(int64_t wide, int64_t F, int64_t H);
KL_API int kl_pack(int64_t wide, const kl_weights *weights, void *pack);
KL_API int64_t kl_pack_backward_size(int64_t wide, int64_t H, int64_t by_gate);
KL_API int kl_pack_backward(int64_t wide, int64_t H, int64_t by_gate, const void *w_hh, void *pack);

/* One call, or two at once, of one B, T, H and threads; backward also of one start and stop, and with
   h_drop_gates 4 in both or in neither. */
KL_API int kl_run_forward(int64_t wide, const kl_forward *calls, int64_t count);
KL_API int kl_run_backward(int64_t wide, const kl_backward *calls, int64_t count);

/* In a run, numbers smaller than the smallest normal one count as zero, as in TensorFlow's threads and
   XLA's. A backward that had such results gives KL_DENORMAL for KL_OK. That they are zero in the
   caller's products of them too: on, for the `threads` of its team, this one among them, and then off,
   which restores what each had. It does not nest. */
KL_API void kl_denormals_are_zero(int64_t threads, int64_t on);

#ifdef __cplusplus
}
#endif
#endif
