// The only file that names threads. Workers live for one call: nothing survives into a forked child, and no pool has
// to be torn down at exit. Starting and joining a std::thread costs about 24 us, which the size threshold hides.
#pragma once

#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace pydln::cpu {

// Threads that are joined on the way out, whatever happens. Not std::jthread: libc++ had none before LLVM 20.
struct Joined {
  std::vector<std::thread> threads;
  Joined() = default;
  Joined(const Joined&) = delete;
  Joined& operator=(const Joined&) = delete;
  Joined(Joined&&) = delete;
  Joined& operator=(Joined&&) = delete;
  ~Joined() {
    for (std::thread& thread : threads) thread.join();
  }
};

// Runs body(0) ... body(workers - 1), each on a thread of its own, while the calling thread calls poll() about
// forty times a second and once when all are done. Neither may throw. When the system grants fewer threads than asked for, fewer bodies run
// (they share a queue, so nothing is left undone); when it grants none, body(0) runs on the calling thread, unpolled.
template <class Body, class Poll>
void run_workers(int workers, const Body& body, const Poll& poll) {
  std::mutex mutex;
  std::condition_variable finished;
  int running = 0;
  Joined joined;
  std::vector<std::thread>& threads = joined.threads;
  threads.reserve(static_cast<std::size_t>(workers));
  for (int i = 0; i < workers; ++i) {
    {
      const std::lock_guard<std::mutex> lock(mutex);
      ++running;
    }
    try {
      threads.emplace_back([&, i] {
        body(i);
        const std::lock_guard<std::mutex> lock(mutex);
        --running;
        finished.notify_one();
      });
    } catch (const std::exception&) {  // std::system_error, std::bad_alloc: no more threads to be had
      const std::lock_guard<std::mutex> lock(mutex);
      --running;
      break;
    }
  }
  if (threads.empty()) return body(0);
  std::unique_lock<std::mutex> lock(mutex);
  while (!finished.wait_for(lock, std::chrono::milliseconds(25), [&] { return running == 0; })) {
    lock.unlock();
    poll();
    lock.lock();
  }
  lock.unlock();
  poll();
}

}  // namespace pydln::cpu
