// The three words that the workers of one call share: which member is next, how far all are, whether to stop.
// Compiler builtins instead of <atomic>: kernel bodies are compiled once per instruction set and may not pull in
// inline functions of the standard library, of which the linker would keep only one copy.
#pragma once

#include <cstdint>

namespace pydln {

struct Control {
  std::int64_t next_member = 0;
  std::int64_t steps_done = 0;  // member-steps, for progress
  int cancel = 0;
};

static inline std::int64_t take_member(Control& c) { return __atomic_fetch_add(&c.next_member, 1, __ATOMIC_RELAXED); }
static inline std::int64_t take_members(Control& c, std::int64_t n) {
  return __atomic_fetch_add(&c.next_member, n, __ATOMIC_RELAXED);
}
static inline void add_steps(Control& c, std::int64_t n) { __atomic_fetch_add(&c.steps_done, n, __ATOMIC_RELAXED); }
static inline std::int64_t steps_done(const Control& c) { return __atomic_load_n(&c.steps_done, __ATOMIC_RELAXED); }
static inline void cancel(Control& c) { __atomic_store_n(&c.cancel, 1, __ATOMIC_RELAXED); }
static inline bool cancelled(const Control& c) { return __atomic_load_n(&c.cancel, __ATOMIC_RELAXED) != 0; }

}  // namespace pydln
