// The only file that knows NumPy: contiguous arrays of one dtype and shape become pointers, or the call is refused.
// These checks guard the border between the package and its extension; users' mistakes are caught before, in Python.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "core/chain.hpp"
#include "core/status.hpp"

namespace pydln::bind {

namespace py = pybind11;

using Shape = std::vector<std::int64_t>;

inline std::string shape_text(const Shape& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

// The array behind `object`: dtype T, C-contiguous, of this shape.
template <class T>
py::array_t<T> checked(const py::handle& object, const std::string& name, const Shape& shape) {
  if (!py::isinstance<py::array_t<T, py::array::c_style>>(object))
    throw py::type_error(name + ": expected a C-contiguous array of " +
                         py::str(py::dtype::of<T>()).template cast<std::string>());
  auto a = py::reinterpret_borrow<py::array_t<T>>(object);
  if (reinterpret_cast<std::uintptr_t>(a.data()) % alignof(T) != 0)
    throw py::value_error(name + ": expected an aligned array");
  const Shape got(a.shape(), a.shape() + a.ndim());
  if (got != shape) throw py::value_error(name + ": expected shape " + shape_text(shape) + ", got " + shape_text(got));
  return a;
}

// A dictionary that comes with a call: an entry that is not there is a ValueError like any other wrong argument.
class Dict : public py::dict {
 public:
  PYBIND11_OBJECT_DEFAULT(Dict, py::dict, PyDict_Check)
  // NOLINTNEXTLINE(bugprone-derived-method-shadowing-base-method): that is the point
  py::object operator[](const char* key) const {
    if (!contains(key)) throw py::value_error(std::string(key) + ": expected it among the entries of a dictionary");
    return py::dict::operator[](key);
  }
};

// Pointers of arrays that may be absent, None, and of those that may not.
template <class T>
const T* input(const py::handle& object, const std::string& name, const Shape& shape) {
  return object.is_none() ? nullptr : checked<T>(object, name, shape).data();
}

template <class T>
T* output(const py::handle& object, const std::string& name, const Shape& shape) {
  return object.is_none() ? nullptr : checked<T>(object, name, shape).mutable_data();
}

template <class T>
const T* needed_input(const py::handle& object, const std::string& name, const Shape& shape) {
  if (object.is_none()) throw py::value_error(name + ": expected an array, got None");
  return input<T>(object, name, shape);
}

template <class T>
T* needed_output(const py::handle& object, const std::string& name, const Shape& shape) {
  if (object.is_none()) throw py::value_error(name + ": expected an array, got None");
  return output<T>(object, name, shape);
}

// A size of an array that no kernel can be without.
inline void expect_some(std::int64_t size, const std::string& what) {
  if (size < 1) throw py::value_error(what + ": expected at least one, got " + std::to_string(size));
}

// One Status per member.
inline Status* statuses(const py::handle& object, std::int64_t batch) {
  static_assert(sizeof(Status) == sizeof(std::int64_t));
  return reinterpret_cast<Status*>(needed_output<std::int64_t>(object, "status", {batch}));
}

// An input that all members share (no leading axis) or of which each has its own (leading axis `batch`).
template <class T>
PerMember<const T> per_member(const py::handle& object, const std::string& name, std::int64_t batch,
                              const Shape& shape) {
  if (object.is_none()) return {};
  if (!py::isinstance<py::array>(object)) throw py::type_error(name + ": expected an array");
  std::int64_t size = 1;
  for (const std::int64_t n : shape) size *= n;
  const auto ndim = py::reinterpret_borrow<py::array>(object).ndim();
  if (ndim == static_cast<py::ssize_t>(shape.size())) return {checked<T>(object, name, shape).data(), 0};
  Shape full{batch};
  full.insert(full.end(), shape.begin(), shape.end());
  return {checked<T>(object, name, full).data(), size};
}

}  // namespace pydln::bind
