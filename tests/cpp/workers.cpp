// Workers of one call: each body once, on a thread of its own, the caller polling meanwhile.
#include <atomic>
#include <chrono>
#include <mutex>
#include <set>
#include <thread>

#include "check.hpp"
#include "core/control.hpp"
#include "cpu/parallel.hpp"

namespace {

using pydln::cpu::run_workers;

void every_body_once() {
  for (const int workers : {1, 2, 5, 64}) {
    std::vector<std::atomic<int>> calls(static_cast<std::size_t>(workers));
    std::set<std::thread::id> threads;
    std::mutex mutex;
    std::atomic<int> polls = 0;
    bool elsewhere = false;
    const auto caller = std::this_thread::get_id();
    run_workers(
        workers,
        [&](int i) {
          ++calls[static_cast<std::size_t>(i)];
          const std::lock_guard<std::mutex> lock(mutex);
          threads.insert(std::this_thread::get_id());
        },
        [&] {
          ++polls;
          elsewhere |= std::this_thread::get_id() != caller;
        });
    for (const auto& count : calls) CHECK(count == 1);
    CHECK(threads.count(caller) == 0);
    CHECK(polls >= 1);
    CHECK(!elsewhere);
  }
}

// Each waits until all others run too: none may have to wait for another's end.
void all_at_the_same_time() {
  std::atomic<int> running = 0;
  run_workers(
      4,
      [&](int) {
        ++running;
        while (running < 4) std::this_thread::yield();
      },
      [] {});
  CHECK(running == 4);
}

void polled_while_they_work() {
  std::atomic<int> polls = 0;
  run_workers(
      2,
      [&](int) {
        while (polls < 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      },
      [&] { ++polls; });
  CHECK(polls >= 3);
}

// The last poll sees all work done: nothing that a worker counts is missed.
void polled_after_the_last() {
  for (int trial = 0; trial < 50; ++trial) {
    std::atomic<int> done = 0;
    int seen = -1;
    run_workers(3, [&](int) { ++done; }, [&] { seen = done; });
    CHECK(seen == 3);
  }
}

// A poll may tell the workers to stop.
void cancelled() {
  pydln::Control control;
  run_workers(
      3,
      [&](int) {
        while (!pydln::cancelled(control)) pydln::add_steps(control, 1);
      },
      [&] {
        if (pydln::steps_done(control) > 1000) pydln::cancel(control);
      });
  CHECK(pydln::steps_done(control) > 1000);
}

void each_member_is_taken_once() {
  pydln::Control control;
  std::vector<std::atomic<int>> taken(1000);
  run_workers(
      4,
      [&](int) {
        for (std::int64_t i = pydln::take_member(control); i < 1000; i = pydln::take_member(control))
          ++taken[static_cast<std::size_t>(i)];
      },
      [] {});
  for (const auto& count : taken) CHECK(count == 1);
}

}  // namespace

int main() {
  every_body_once();
  all_at_the_same_time();
  polled_while_they_work();
  polled_after_the_last();
  cancelled();
  each_member_is_taken_once();
  return check::result();
}
