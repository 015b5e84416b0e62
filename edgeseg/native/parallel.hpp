// Rows shared out among threads.
#pragma once

#include <algorithm>
#include <functional>
#include <future>
#include <vector>

namespace edgeseg {

// Calls work(first, last) for each of up to `threads` parts of 0 … count - 1, the last part in the
// caller's thread. What a part throws is thrown here. A thread takes tens of microseconds to
// start: worth it for milliseconds of work.
inline void share_out(int count, int threads, const std::function<void(int, int)> &work) {
    const int parts = std::clamp(threads, 1, std::max(count, 1));
    const auto start = [=](int part) {
        return static_cast<int>(static_cast<long long>(count) * part / parts);
    };
    std::vector<std::future<void>> others;  // wait for their thread when destroyed
    for (int part = 0; part + 1 < parts; ++part)
        others.push_back(std::async(std::launch::async, std::cref(work), start(part), start(part + 1)));
    work(start(parts - 1), count);
    for (std::future<void> &other : others) other.get();
}

}  // namespace edgeseg
