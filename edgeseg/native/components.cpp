// All classes in one pass: each row is cut into runs of one label, which join those of the row
// before that they touch. The joined form trees in which the first run of a region is the root
// (union-find: Fiorio and Gustedt, "Two linear time Union-Find strategies for image processing",
// 1996; by runs: He, Chao and Suzuki, "A run-based two-scan labeling algorithm", 2008).

#include "components.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace edgeseg {
namespace {

struct Run {
    int begin, end, row;
    std::uint32_t parent;  // another run of the region, before this one, or itself
    std::uint8_t label;
};

using Runs = std::vector<Run>;

std::uint32_t root(Runs &runs, std::uint32_t i) {
    while (runs[i].parent != i) i = runs[i].parent = runs[runs[i].parent].parent;
    return i;
}

// Joins two runs of neighbouring rows if they have one label and meet, be it at a corner.
void meet(Runs &runs, std::uint32_t above, std::uint32_t below) {
    const Run &upper = runs[above], &lower = runs[below];
    if (upper.label != lower.label || upper.begin > lower.end || lower.begin > upper.end) return;
    const std::uint32_t one = root(runs, above), other = root(runs, below);
    runs[std::max(one, other)].parent = std::min(one, other);
}

// First index past `x` that has another label than `x`.
int run_end(const std::uint8_t *row, int x, int width) {
    const std::uint64_t same = row[x] * 0x0101010101010101u;
    for (++x; x + 8 <= width; x += 8) {
        std::uint64_t word;
        std::memcpy(&word, row + x, sizeof word);
        if (word != same) return x + std::countr_zero(word ^ same) / 8;
    }
    while (x < width && row[x] == static_cast<std::uint8_t>(same)) ++x;
    return x;
}

void cut(const std::uint8_t *row, int y, int width, int background, Runs &runs) {
    for (int x = 0, end; x < width; x = end) {
        end = run_end(row, x, width);
        const auto index = static_cast<std::uint32_t>(runs.size());
        if (row[x] != background) runs.push_back({x, end, y, index, row[x]});
    }
}

// Joins the runs first … middle of a row with middle … last of the row after.
void join_rows(Runs &runs, std::uint32_t first, std::uint32_t middle, std::uint32_t last) {
    for (std::uint32_t above = first, below = middle; above < middle && below < last;) {
        meet(runs, above, below);
        if (runs[above].end < runs[below].end) {
            ++above;
            continue;
        }
        // Where both end, the corner between this one and the next above is left to look at.
        if (runs[above].end == runs[below].end && above + 1 < middle) meet(runs, above + 1, below);
        ++below;
    }
}

void add(const Run &run, Component &to) {
    const std::int64_t length = run.end - run.begin;
    to.area += length;
    to.left = std::min<std::int64_t>(to.left, run.begin);
    to.right = std::max<std::int64_t>(to.right, run.end);
    to.bottom = run.row + 1;  // rows ascend
    to.sum_x += length * (run.begin + run.end - 1) / 2;
    to.sum_y += length * run.row;
}

}  // namespace

std::vector<Component> find_components(const std::uint8_t *labels, std::ptrdiff_t stride,
                                       int height, int width, int background) {
    Runs runs;
    std::uint32_t first = 0, middle = 0;
    for (int y = 0; y < height; ++y) {
        cut(labels + y * stride, y, width, background, runs);
        const auto last = static_cast<std::uint32_t>(runs.size());
        join_rows(runs, first, middle, last);
        first = middle, middle = last;
    }
    std::vector<Component> result;
    std::vector<std::uint32_t> place(runs.size());  // of each root in the result
    for (std::uint32_t i = 0; i < runs.size(); ++i) {
        const Run &run = runs[i];
        const std::uint32_t top = root(runs, i);
        if (top == i) {
            place[i] = static_cast<std::uint32_t>(result.size());
            result.push_back({run.label, 0, run.begin, run.row, run.end, run.row + 1, 0, 0});
        }
        add(run, result[place[top]]);
    }
    return result;
}

}  // namespace edgeseg
