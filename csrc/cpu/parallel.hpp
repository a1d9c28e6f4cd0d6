// The only file that names threads. Workers live for one call: nothing survives into a forked child, and no pool has
// to be torn down at exit. Starting and joining a std::thread costs about 24 us, which the size threshold hides.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace pydln::cpu {

// Runs body(0) ... body(workers - 1), each on a thread of its own, while the calling thread calls poll() about
// forty times a second and once more at the end. body must not throw. Fewer threads than asked for are used when the
// system grants no more; work(i) of those missing runs on the calling thread.
template <class Body, class Poll>
void run_workers(int workers, Body body, Poll poll) {
  std::mutex mutex;
  std::condition_variable finished;
  int running = 0;
  std::vector<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(workers));
  int started = 0;
  for (; started < workers; ++started) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      ++running;
    }
    try {
      threads.emplace_back([&, started] {
        body(started);
        const std::lock_guard<std::mutex> lock(mutex);
        --running;
        finished.notify_one();
      });
    } catch (const std::system_error&) {
      const std::lock_guard<std::mutex> lock(mutex);
      --running;
      break;
    }
  }
  for (int i = started; i < workers; ++i) body(i);
  {
    std::unique_lock<std::mutex> lock(mutex);
    while (running > 0) {
      finished.wait_for(lock, std::chrono::milliseconds(25));
      lock.unlock();
      poll();
      lock.lock();
    }
  }
  for (std::thread& t : threads) t.join();
  poll();
}

}  // namespace pydln::cpu
