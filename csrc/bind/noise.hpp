// The noise of stochastic gradients out of Python.
#pragma once

#include "bind/array.hpp"
#include "ops/noise.hpp"

namespace pydln::bind {

template <class T>
ops::Noise<T> noise_of(const Dict& given, std::int64_t batch, std::int64_t out, std::int64_t in) {
  ops::Noise<T> n;
  n.kind = static_cast<ops::NoiseKind>(given["kind"].cast<std::int64_t>());
  n.seed = given["seed"].cast<std::uint64_t>();
  n.number = per_member<std::int64_t>(given["number"], "noise.number", batch, {});
  n.size = given["size"].cast<std::int64_t>();
  n.samples = given["samples"].cast<std::int64_t>();
  n.replace = given["replace"].cast<bool>();
  n.scale = given["scale"].template cast<T>();
  n.x = per_member<T>(given["x"], "noise.x", batch, {n.samples, in});
  n.y = per_member<T>(given["y"], "noise.y", batch, {n.samples, out});
  n.root = per_member<T>(given["root"], "noise.root", batch, {in, in});
  n.labels = per_member<T>(given["labels"], "noise.labels", batch, {out, in});
  n.std = per_member<T>(given["std"], "noise.std", batch, {});
  const bool minibatch = n.kind == ops::NoiseKind::minibatch, online = n.kind == ops::NoiseKind::online;
  const bool sized = 1 <= n.size && n.size <= INT32_MAX;
  const bool few = 1 > n.samples || n.samples > INT32_MAX || (!n.replace && n.samples < n.size);
  if (!n.number || !n.std || (n.samples_drawn() && !sized) || (minibatch && (!n.x || !n.y || few)) ||
      (online && !n.labels) || !(minibatch || online || n.kind == ops::NoiseKind::labels))
    throw py::value_error("noise: incomplete");
  return n;
}

}  // namespace pydln::bind
