// Votes of earlier frames on each pixel's label; edgeseg/ops/smoothing.py explains the rule.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgeseg {

// Height x width pixels whose rows are `stride` apart in `labels`, and packed in the memory.
struct LabelVotes {
    const std::uint8_t *labels;
    std::ptrdiff_t stride;
    int height, width;
    std::uint8_t *shown, *votes;
};

// Limits of the votes, one for each of rows x columns blocks that divide the map evenly.
struct VoteLimits {
    const std::uint8_t *blocks;
    int rows, columns;
};

// Limits each pixel's votes, adds `step` (1 to 255) where the label is the one shown, takes it
// away elsewhere, and shows the new label, with 128 votes, where none are left.
void smooth(const LabelVotes &map, const VoteLimits &limits, int step);

}  // namespace edgeseg
