#include "dispatch.hpp"

#include <array>
#include <atomic>
#include <cstddef>

namespace edgeseg {
namespace {

struct Levels {
    std::array<const Rows *, 3> tables{};
    std::size_t count = 0;

    Levels() {
#if defined(__x86_64__)
        if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
            __builtin_cpu_supports("avx512dq"))
            tables[count++] = &avx512::rows;
        if (__builtin_cpu_supports("avx2")) tables[count++] = &avx2::rows;
        tables[count++] = &portable::rows;
#elif defined(__aarch64__)
        tables[count++] = &neon::rows;  // every CPU of that kind has it
#else
        tables[count++] = &portable::rows;
#endif
    }
};

const Levels available;
std::atomic<const Rows *> active = available.tables[0];

}  // namespace

std::span<const Rows *const> levels() { return {available.tables.data(), available.count}; }

const Rows &rows() { return *active.load(std::memory_order_relaxed); }

bool use(std::string_view level) {
    for (const Rows *table : levels()) {
        if (table->level != level) continue;
        active.store(table, std::memory_order_relaxed);
        return true;
    }
    return false;
}

}  // namespace edgeseg
