// Target: threads that work off a queue, and whose results and exceptions are awaited. A line each round.
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <future>
#include <iostream>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <vector>
using namespace std::chrono_literals;
static unsigned long mix(unsigned long x) { x *= 0x9e3779b97f4a7c15; return x ^ x >> 29; }
thread_local unsigned long own = 0;
static unsigned long work(unsigned long seed) {
    own = seed;
    for (int i = 0; i < 20000; i++) own = mix(own + i);
    if (own % 2) throw std::runtime_error(std::to_string(own));
    return own;
}
int main() {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::packaged_task<unsigned long()>> queue;
    bool over = false;
    std::vector<std::thread> workers;
    for (int n = 0; n < 4; n++) workers.emplace_back([&] {
        std::unique_lock lock(mutex);
        for (;;) {
            while (queue.empty() && !over) changed.wait_for(lock, 1h);
            if (queue.empty()) return;
            auto task = std::move(queue.front());
            queue.pop_front();
            lock.unlock();
            task();
            lock.lock();
        }
    });
    for (int round = 0; round < 100; round++) {
        std::vector<std::future<unsigned long>> futures;
        for (int n = 0; n < 8; n++) {
            std::packaged_task<unsigned long()> task([=] { return work(round * 10 + n); });
            futures.push_back(task.get_future());
            std::lock_guard lock(mutex);
            queue.push_back(std::move(task));
            changed.notify_one();
        }
        futures.push_back(std::async(std::launch::async, work, round));
        std::cout << round;
        for (auto &future : futures)
            try { std::cout << ' ' << future.get(); }
            catch (std::runtime_error &error) { std::cout << " thrown " << error.what(); }
        std::cout << std::endl;
        std::this_thread::sleep_for(1ms * std::atoi(std::getenv("PACE")));
    }
    { std::lock_guard lock(mutex); over = true; }
    changed.notify_all();
    for (auto &worker : workers) worker.join();
}
