// Looks at Python from the calling thread while workers run without the GIL: Ctrl-C and progress.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <optional>

#include "core/control.hpp"

namespace pydln::bind {

namespace py = pybind11;

class Poll {
 public:
  // `tick` is None or a callable(member_steps_done, member_steps_total).
  Poll(Control& control, py::object tick, std::int64_t total) : control_(control), tick_(std::move(tick)), total_(total) {}

  // Takes the GIL. A signal handler's exception, or one of tick's, cancels the run and is kept for raise().
  void operator()() {
    if (error_) return;
    const py::gil_scoped_acquire gil;
    try {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (!tick_.is_none()) tick_(steps_done(control_), total_);
    } catch (py::error_already_set& e) {
      error_.emplace(e);
      cancel(control_);
    }
  }

  // With the GIL held, after the run: true if Ctrl-C ended it; any other exception goes on its way.
  bool interrupted() const {
    if (!error_) return false;
    if (!error_->matches(PyExc_KeyboardInterrupt)) throw *error_;
    return true;
  }

 private:
  Control& control_;
  py::object tick_;
  std::int64_t total_;
  std::optional<py::error_already_set> error_;
};

}  // namespace pydln::bind
