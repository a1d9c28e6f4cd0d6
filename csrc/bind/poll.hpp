// Looks at Python from the calling thread while workers run without the GIL: Ctrl-C and progress.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

#include <cstdint>
#include <exception>

#include "core/control.hpp"

namespace pydln::bind {

namespace py = pybind11;

// What `memory`, a callable, says how many bytes are free; None: any number. Called without the GIL.
inline auto free_bytes(const py::object& memory) {
  return [&memory] {
    const py::gil_scoped_acquire gil;
    const py::object bytes = memory();
    return bytes.is_none() ? SIZE_MAX : bytes.cast<std::size_t>();
  };
}

class Poll {
 public:
  // `tick` is None or a callable(member_steps_done, member_steps_total).
  Poll(Control& control, py::object tick, std::int64_t total)
      : control_(control), tick_(std::move(tick)), total_(total) {}

  // Takes the GIL. Whatever a signal handler or tick raises cancels the run and is kept for interrupted().
  void operator()() {
    if (error_) return;
    if (finalizing()) {  // taking the GIL now would end this thread under the workers' feet: let the process end
      cancel(control_);
      for (;;) pause();
    }
    const py::gil_scoped_acquire gil;
    try {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (!tick_.is_none()) tick_(steps_done(control_), total_);
    } catch (...) {
      error_ = std::current_exception();
      cancel(control_);
    }
  }

  // With the GIL held, after the run: true if Ctrl-C ended it; any other exception goes on its way.
  bool interrupted() const {
    if (!error_) return false;
    try {
      std::rethrow_exception(error_);
    } catch (const py::error_already_set& e) {
      if (e.matches(PyExc_KeyboardInterrupt)) return true;
      throw;
    }
  }

 private:
  Control& control_;
  py::object tick_;
  std::int64_t total_;
  std::exception_ptr error_;

  static bool finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
    return Py_IsFinalizing() != 0;
#else
    return _Py_IsFinalizing() != 0;
#endif
  }
};

// Calls run(control, poll) without the GIL, the calling thread polling; whether Ctrl-C ended it. `tick` as in Poll.
template <class Run>
bool polled(const py::object& tick, std::int64_t total, Run run) {
  Control control;
  Poll poll(control, tick, total);
  {
    const py::gil_scoped_release release;
    run(control, [&poll] { poll(); });
  }
  return poll.interrupted();
}

}  // namespace pydln::bind
