// Vectors by the compiler's own types, and the activations on them. Compiled once for each
// instruction set: KL_BYTES is the width of a vector, KL_SET the namespace.
//
// exp and the tanh of doubles are Cephes's (S. L. Moshier, expf.c, exp.c, tanh.c), without branches.

#pragma once

#include <stdint.h>
#include <string.h>

#include "lstm.h"

#if KL_BYTES == 64 && defined(__AVX512F__)
#define KL_MM(NAME) _mm512_##NAME
#elif KL_BYTES == 32 && defined(__AVX__)
#define KL_MM(NAME) _mm256_##NAME
#elif KL_BYTES == 16 && defined(__SSE2__)
#define KL_MM(NAME) _mm_##NAME
#endif
#ifdef KL_MM
#include <immintrin.h>
#endif

#define KL_INLINE static inline __attribute__((always_inline))

namespace KL_SET {

template <class S>
struct Vector;

template <>
struct Vector<float> {
  typedef float type __attribute__((vector_size(KL_BYTES)));
  typedef int32_t bits __attribute__((vector_size(KL_BYTES)));
  typedef int32_t step;
};

template <>
struct Vector<double> {
  typedef double type __attribute__((vector_size(KL_BYTES)));
  typedef int64_t bits __attribute__((vector_size(KL_BYTES)));
  typedef int64_t step;
};

template <class S>
using V = typename Vector<S>::type;

template <class S>
constexpr int64_t lanes = KL_BYTES / sizeof(S);

template <class S>
KL_INLINE V<S> load(const S *from) {
  V<S> v;
  memcpy(&v, from, sizeof v);
  return v;
}

template <class S>
KL_INLINE void store(S *to, V<S> v) {
  memcpy(to, &v, sizeof v);
}

// The first n of a vector; zeros follow.
template <class S>
KL_INLINE V<S> load(const S *from, int64_t n) {
  if (n >= lanes<S>) return load(from);
  V<S> v = {};
  memcpy(&v, from, n * sizeof(S));
  return v;
}

template <class S>
KL_INLINE void store(S *to, V<S> v, int64_t n) {
  if (n >= lanes<S>)
    store(to, v);
  else
    memcpy(to, &v, n * sizeof(S));
}

template <class S>
KL_INLINE V<S> all(S value) {
  return value - V<S>{};
}

// The lesser and the greater of a limit and x, of NaN NaN. (The compiler's vector types have no
// such operators, and GCC 12 makes none of a comparison.)
#ifdef KL_MM
KL_INLINE V<float> at_most(V<float> x, float limit) { return KL_MM(min_ps)(all(limit), x); }
KL_INLINE V<double> at_most(V<double> x, double limit) { return KL_MM(min_pd)(all(limit), x); }
KL_INLINE V<float> at_least(V<float> x, float limit) { return KL_MM(max_ps)(all(limit), x); }
KL_INLINE V<double> at_least(V<double> x, double limit) { return KL_MM(max_pd)(all(limit), x); }
#else
template <class S>
KL_INLINE V<S> at_most(V<S> x, S limit) {
  return x > limit ? all(limit) : x;
}

template <class S>
KL_INLINE V<S> at_least(V<S> x, S limit) {
  return x < limit ? all(limit) : x;
}
#endif

template <class S>
struct Rounding;

template <>
struct Rounding<float> {
  static constexpr float magic = 12582912.0f;  // 1.5 * 2^23: who adds it has integers in low bits
  static constexpr int mantissa = 23;
};

template <>
struct Rounding<double> {
  static constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int mantissa = 52;
};

// A number as n ln 2 + r, the reduction of its range.
template <class S>
struct Reduced {
  V<S> n, n_and_magic, r;
};

KL_INLINE Reduced<float> reduced(V<float> x) {
  const V<float> n_and_magic = x * 1.44269504088896341f + Rounding<float>::magic;
  const V<float> n = n_and_magic - Rounding<float>::magic;
  return {n, n_and_magic, x - n * 0.693359375f - n * -2.12194440e-4f};
}

KL_INLINE Reduced<double> reduced(V<double> x) {
  const V<double> n_and_magic = x * 1.4426950408889634073599 + Rounding<double>::magic;
  const V<double> n = n_and_magic - Rounding<double>::magic;
  return {n, n_and_magic, x - n * 6.93145751953125e-1 - n * 1.42860682030941723212e-6};
}

// y times 2 to the n. Where an instruction does it, to infinity and of NaN NaN.
#if defined(KL_MM) && KL_BYTES == 64
#define KL_SCALES true
KL_INLINE V<float> scaled(V<float> y, Reduced<float> x) { return _mm512_scalef_ps(y, x.n); }
KL_INLINE V<double> scaled(V<double> y, Reduced<double> x) { return _mm512_scalef_pd(y, x.n); }
#else
#define KL_SCALES false
template <class S>
KL_INLINE V<S> scaled(V<S> y, Reduced<S> x) {
  typedef typename Vector<S>::bits bits;
  return (V<S>)((bits)y + ((bits)x.n_and_magic << Rounding<S>::mantissa));
}
#endif

// e to the r, less 1, for |r| < 0.35.
KL_INLINE V<float> small_expm1(V<float> r) {
  V<float> y = all(1.9875691500e-4f);
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  return y * (r * r) + r;
}

KL_INLINE V<double> small_expm1(V<double> r) {
  V<double> z = r * r;
  V<double> p = all(1.26177193074810590878e-4);
  p = p * z + 3.02994407707441961300e-2;
  p = (p * z + 9.99999999999999999910e-1) * r;
  V<double> q = all(3.00198505138664455042e-6);
  q = q * z + 2.52448340349684104192e-3;
  q = q * z + 2.27265548208155028766e-1;
  q = q * z + 2.00000000000000000005;
  return 2.0 * (p / (q - p));
}

// Infinity above 89 (710), no less than at -87 (-708), of NaN NaN.
template <class S>
KL_INLINE V<S> exponential(V<S> x) {
  const S most = sizeof(S) == 8 ? 708 : 88, least = sizeof(S) == 8 ? -708 : -87;
  const S beyond = sizeof(S) == 8 ? 710 : 89;
  const Reduced<S> of_x = reduced(at_least(at_most(x, KL_SCALES ? beyond : most), least));
  const V<S> y = scaled(small_expm1(of_x.r) + S(1), of_x);
  return KL_SCALES ? y : x <= most ? y : x + S(__builtin_inf());
}

// From e^2|x| - 1, which near 0 has all its digits, since n is 0 there.
KL_INLINE V<float> tanh_of(V<float> x) {
  typedef Vector<float>::bits bits;
  const bits sign = (bits)x & INT32_MIN;
  const V<float> size = (V<float>)((bits)x ^ sign);
  const Reduced<float> of_x = reduced(at_most(size + size, 88.0f));
  const V<float> power = scaled(all(1.0f), of_x);
  const V<float> less_1 = small_expm1(of_x.r) * power + (power - 1.0f);
  return (V<float>)((bits)(less_1 / (less_1 + 2.0f)) | sign);
}

KL_INLINE V<double> small_tanh(V<double> x) {  // |x| < 0.625
  V<double> z = x * x;
  V<double> p = all(-9.64399179425052238628e-1);
  p = p * z + -9.92877231001918586564e1;
  p = p * z + -1.61468768441708447952e3;
  V<double> q = z + 1.12811678491632931402e2;
  q = q * z + 2.23548839060100448583e3;
  q = q * z + 4.84406305325125486048e3;
  return x + x * z * (p / q);
}

KL_INLINE V<double> tanh_of(V<double> x) {
  V<double> size = x < 0.0 ? -x : x;
  V<double> large = 1.0 - 2.0 / (exponential<double>(size + size) + 1.0);
  large = x < 0.0 ? -large : large;
  return size >= 0.625 ? large : small_tanh(x);
}

template <class S>
KL_INLINE V<S> sigmoid_of(V<S> x) {
  return S(1) / (exponential<S>(-x) + S(1));  // 0 exactly in the end: it may meet an infinity
}

template <class S>
KL_INLINE V<S> clipped(V<S> x, S low, S high) {
  return at_most(at_least(x, low), high);
}

template <class S>
KL_INLINE V<S> activated(int64_t activation, V<S> x) {
  switch (activation) {
    case KL_TANH:
      return tanh_of(x);
    case KL_SIGMOID:
      return sigmoid_of<S>(x);
    case KL_RELU:
      return at_least(x, S(0));
    case KL_SOFTSIGN:
      return x / (S(1) + (x < S(0) ? -x : x));
    case KL_HARD_SIGMOID:
      return clipped<S>(x + S(3), S(0), S(6)) / S(6);
    case KL_HARD_SIGMOID_V2:
      return clipped<S>(S(0.2) * x + S(0.5), S(0), S(1));
    default:
      return x;
  }
}

// The derivative, from the activation's result y: 0 where a hard_sigmoid has just reached 0 or 1. (At
// exactly -2.5 and 2.5 torch's and TensorFlow's clip have 0.2 for the one of Keras 1 and 2.)
template <class S>
KL_INLINE V<S> slope(int64_t activation, V<S> y) {
  const V<S> zero = {}, one = all(S(1));
  switch (activation) {
    case KL_TANH:
      return S(1) - y * y;
    case KL_SIGMOID:
      return y * (S(1) - y);
    case KL_RELU:
      return y > S(0) ? one : zero;
    case KL_SOFTSIGN: {
      V<S> rest = S(1) - (y < S(0) ? -y : y);
      return rest * rest;
    }
    case KL_HARD_SIGMOID:
    case KL_HARD_SIGMOID_V2: {
      V<S> inside = all(activation == KL_HARD_SIGMOID ? S(1) / S(6) : S(0.2));
      inside = y > S(0) ? inside : zero;
      return y < S(1) ? inside : zero;
    }
    default:
      return one;
  }
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

}  // namespace KL_SET
