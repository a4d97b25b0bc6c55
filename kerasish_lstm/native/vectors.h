// Vectors by the compiler's own types, and the activations on them. Compiled once for each
// instruction set: KL_BYTES is the width of a vector, KL_SET the namespace.
//
// exp and tanh are Cephes's (S. L. Moshier, expf.c, tanhf.c, exp.c, tanh.c), without branches.

#pragma once

#include <stdint.h>
#include <string.h>

#include "lstm.h"

#define KL_INLINE static inline __attribute__((always_inline))

namespace KL_SET {

template <class S>
struct Vector;

template <>
struct Vector<float> {
  typedef float type __attribute__((vector_size(KL_BYTES)));
  typedef int32_t bits __attribute__((vector_size(KL_BYTES)));
};

template <>
struct Vector<double> {
  typedef double type __attribute__((vector_size(KL_BYTES)));
  typedef int64_t bits __attribute__((vector_size(KL_BYTES)));
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
  return V<S>{} + value;
}

// 2 to the n, for the n that adding `magic` has left in the low bits, times y.
KL_INLINE V<float> scaled(V<float> y, V<float> n_and_magic) {
  typedef Vector<float>::bits bits;
  return (V<float>)((bits)y + ((bits)n_and_magic << 23));
}

KL_INLINE V<double> scaled(V<double> y, V<double> n_and_magic) {
  typedef Vector<double>::bits bits;
  return (V<double>)((bits)y + ((bits)n_and_magic << 52));
}

// Between the smallest and the largest number whose power is one; NaN stays NaN.
KL_INLINE V<float> exponential(V<float> given) {
  V<float> x = given;
  x = x > 88.0f ? all(88.0f) : x;
  x = x < -87.0f ? all(-87.0f) : x;
  const float magic = 12582912.0f;  // 1.5 * 2^23
  V<float> n = x * 1.44269504088896341f + magic;
  V<float> whole = n - magic;
  V<float> r = x - whole * 0.693359375f;
  r = r - whole * -2.12194440e-4f;
  V<float> y = all(1.9875691500e-4f);
  y = y * r + 1.3981999507e-3f;
  y = y * r + 8.3334519073e-3f;
  y = y * r + 4.1665795894e-2f;
  y = y * r + 1.6666665459e-1f;
  y = y * r + 5.0000001201e-1f;
  y = y * (r * r) + r + 1.0f;
  return given == given ? scaled(y, n) : given;  // scaled() may make a number of a NaN
}

KL_INLINE V<double> exponential(V<double> given) {
  V<double> x = given;
  x = x > 708.0 ? all(708.0) : x;
  x = x < -708.0 ? all(-708.0) : x;
  const double magic = 6755399441055744.0;  // 1.5 * 2^52
  V<double> n = x * 1.4426950408889634073599 + magic;
  V<double> whole = n - magic;
  V<double> r = x - whole * 6.93145751953125e-1;
  r = r - whole * 1.42860682030941723212e-6;
  V<double> z = r * r;
  V<double> p = all(1.26177193074810590878e-4);
  p = p * z + 3.02994407707441961300e-2;
  p = (p * z + 9.99999999999999999910e-1) * r;
  V<double> q = all(3.00198505138664455042e-6);
  q = q * z + 2.52448340349684104192e-3;
  q = q * z + 2.27265548208155028766e-1;
  q = q * z + 2.00000000000000000005;
  return given == given ? scaled(1.0 + 2.0 * (p / (q - p)), n) : given;
}

KL_INLINE V<float> small_tanh(V<float> x) {  // |x| < 0.625
  V<float> z = x * x;
  V<float> y = all(-5.70498872745e-3f);
  y = y * z + 2.06390887954e-2f;
  y = y * z + -5.37397155531e-2f;
  y = y * z + 1.33314422036e-1f;
  y = y * z + -3.33332819422e-1f;
  return y * z * x + x;
}

KL_INLINE V<double> small_tanh(V<double> x) {
  V<double> z = x * x;
  V<double> p = all(-9.64399179425052238628e-1);
  p = p * z + -9.92877231001918586564e1;
  p = p * z + -1.61468768441708447952e3;
  V<double> q = z + 1.12811678491632931402e2;
  q = q * z + 2.23548839060100448583e3;
  q = q * z + 4.84406305325125486048e3;
  return x + x * z * (p / q);
}

template <class S>
KL_INLINE V<S> tanh_of(V<S> x) {
  V<S> size = x < S(0) ? -x : x;
  V<S> large = S(1) - S(2) / (exponential(size + size) + S(1));
  large = x < S(0) ? -large : large;
  return size >= S(0.625) ? large : small_tanh(x);
}

template <class S>
KL_INLINE V<S> sigmoid_of(V<S> x) {
  const V<S> y = S(1) / (exponential(-x) + S(1));
  return x < S(sizeof(S) == 8 ? -708 : -87) ? V<S>{} : y;  // 0 exactly: it may meet an infinity
}

template <class S>
KL_INLINE V<S> clipped(V<S> x, S low, S high) {
  x = x < low ? all(low) : x;
  return x > high ? all(high) : x;
}

template <class S>
KL_INLINE V<S> activated(int64_t activation, V<S> x) {
  switch (activation) {
    case KL_TANH:
      return tanh_of<S>(x);
    case KL_SIGMOID:
      return sigmoid_of<S>(x);
    case KL_RELU:
      return x < S(0) ? all(S(0)) : x;
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

}  // namespace KL_SET
