// The shape of a chain of weight matrices and the arrays that hold one value, or one matrix, per member.
#pragma once

#include <cstddef>
#include <cstdint>

namespace pydln {

// depth D and widths n_0 … n_D, input first. W_l is n_l × n_{l-1}, l = 1 … D; layer(l) in code counts from 0.
struct Chain {
  std::int64_t depth;
  const std::int64_t* widths;  // depth + 1 entries
};

// data + member * stride is what belongs to `member`; stride 0 shares one value among all. data null: absent.
template <class T>
struct PerMember {
  T* data = nullptr;
  std::int64_t stride = 0;

  // Always inlined: a copy compiled for one instruction set must not serve another.
  __attribute__((always_inline)) T* of(std::int64_t member) const { return data + member * stride; }
  __attribute__((always_inline)) explicit operator bool() const { return data != nullptr; }
};

}  // namespace pydln
