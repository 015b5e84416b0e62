// The frame is larger than the label map: what belongs to a row of the map, its colours spread
// over the frame's width, serves all rows of the frame that it covers. The row after it differs
// where regions end: only there are colours spread anew.

#include "overlay.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <numeric>
#include <vector>

#include "dispatch.hpp"
#include "parallel.hpp"

namespace edgeseg {
namespace {

constexpr int kPixels = 5;  // whole ones in a Piece

using Run = std::array<std::uint8_t, 16>;

// What a label lays over pixels.
struct Piece {
    Run colours, mask;
};

std::array<Piece, 256> pieces(const Look &look) {
    std::array<Piece, 256> result{};
    for (int label = 0; label < 256; ++label) {
        const std::uint8_t *colour = look.colours + 4 * label;
        result[label].mask.fill(colour[3]);
        for (int i = 0; i < 16; ++i) result[label].colours[i] = colour[i % 3];
    }
    return result;
}

// starts[i] … starts[i + 1]: where source index i lies among the ascending `indices`.
std::vector<int> starts(const std::int32_t *indices, int count, int source) {
    std::vector<int> result(source + 1);
    for (int i = 0; i < count; ++i) ++result[indices[i] + 1];
    std::partial_sum(result.begin(), result.end(), result.begin());
    return result;
}

// A row of labels as what it lays over a row of the frame.
class Spread {
public:
    Spread(const std::vector<int> &starts, const std::array<Piece, 256> &pieces)
        : starts_(starts.data()),
          count_(static_cast<int>(starts.size()) - 1),
          pieces_(pieces),
          part_((3 * static_cast<std::size_t>(starts.back()) + sizeof(Run) - 1) / sizeof(Line) + 1),
          lines_(2 * part_) {}

    // The row must outlive the next call.
    void follow(const std::uint8_t *labels) {
        int i = 0;
        for (; last_ != nullptr && i + 8 <= count_; i += 8) {
            std::uint64_t now, before;
            std::memcpy(&now, labels + i, sizeof now);
            std::memcpy(&before, last_ + i, sizeof before);
            if (const std::uint64_t changes = now ^ before; changes != 0)
                renew(labels, i + std::countr_zero(changes) / 8,
                      i + 8 - std::countl_zero(changes) / 8);
        }
        if (i < count_) renew(labels, i, count_);
        last_ = labels;
    }

    const std::uint8_t *colours() const { return lines_[0].bytes; }
    const std::uint8_t *mask() const { return lines_[part_].bytes; }

private:
    // Writes whole pieces: what is too much the next label covers, or is put back at the end.
    void renew(const std::uint8_t *labels, int first, int end) {
        const int *starts = starts_;  // which no write to lines_ can change
        std::uint8_t *colours = lines_[0].bytes, *mask = lines_[part_].bytes;
        const auto write = [=](int x, const Piece &piece) {
            std::memcpy(colours + 3 * x, &piece.colours, sizeof(Run));
            std::memcpy(mask + 3 * x, &piece.mask, sizeof(Run));
        };
        Piece after;
        std::memcpy(&after.colours, colours + 3 * starts[end], sizeof(Run));
        std::memcpy(&after.mask, mask + 3 * starts[end], sizeof(Run));
        for (int i = first, x = starts[first]; i < end; ++i, x = starts[i])
            for (const int stop = starts[i + 1]; x < stop; x += kPixels)
                write(x, pieces_[labels[i]]);
        write(starts[end], after);
    }

    // Loads that straddle lines of the cache take half as long again.
    struct alignas(64) Line {
        std::uint8_t bytes[64];
    };

    const int *starts_;
    int count_;
    const std::array<Piece, 256> &pieces_;
    std::size_t part_;         // lines
    std::vector<Line> lines_;  // colours and mask
    const std::uint8_t *last_ = nullptr;
};

// The label map at the frame's width. Writes eight bytes at a time: what is too much the next
// label covers, or the slack at the end.
std::vector<std::uint8_t> widened(const Labels &labels, const std::vector<int> &starts) {
    const std::size_t width = starts.back();
    std::vector<std::uint8_t> result(labels.height * width + 8);
    for (int y = 0; y < labels.height; ++y) {
        const std::uint8_t *row = labels.data + y * labels.stride;
        std::uint8_t *out = result.data() + y * width;
        for (int i = 0, x = 0; i < labels.width; x = starts[++i])
            for (const std::uint64_t word = row[i] * 0x0101010101010101u; x < starts[i + 1]; x += 8)
                std::memcpy(out + x, &word, sizeof word);
    }
    return result;
}

// First index from `x` on that is not 0, or `width`.
int next_in(const std::uint8_t *rim, int x, int width) {
    for (; x + 8 <= width; x += 8) {
        std::uint64_t word;
        std::memcpy(&word, rim + x, sizeof word);
        if (word != 0) return x + std::countr_zero(word) / 8;
    }
    while (x < width && rim[x] == 0) ++x;
    return x;
}

void draw_rims(const Canvas &canvas, const Labels &labels, const std::vector<int> &starts,
               const Look &look, int threads) {
    const std::vector<std::uint8_t> wide = widened(labels, starts);
    const auto row = [&](int y) {
        return wide.data() +
               static_cast<std::size_t>(labels.rows[std::clamp(y, 0, canvas.height - 1)]) *
                   canvas.width;
    };
    share_out(canvas.height, threads, [&](int begin, int end) {
        std::vector<std::uint8_t> rim(canvas.width);
        for (int y = begin; y < end; ++y) {
            const std::uint8_t *here = row(y);
            rows().find_rim(row(y - 1), here, row(y + 1), canvas.width, rim.data());
            std::uint8_t *out = canvas.out + static_cast<std::size_t>(y) * canvas.width * 3;
            for (int x = 0; (x = next_in(rim.data(), x, canvas.width)) < canvas.width; ++x)
                if (const std::uint8_t *colour = look.colours + 4 * here[x]; colour[3] != 0)
                    std::memcpy(out + 3 * x, colour, 3);
        }
    });
}

}  // namespace

void overlay(const Canvas &canvas, const Labels &labels, const Look &look, int threads) {
    const Rows &simd = rows();
    const std::array<Piece, 256> table = pieces(look);
    const std::size_t bytes = static_cast<std::size_t>(canvas.width) * 3;
    const std::vector<int> columns = starts(labels.columns, canvas.width, labels.width);

    share_out(canvas.height, threads, [&](int begin, int end) {
        Spread spread(columns, table);
        for (int y = begin; y < end; ++y) {
            if (y == begin || labels.rows[y] != labels.rows[y - 1])
                spread.follow(labels.data + labels.rows[y] * labels.stride);
            simd.lay_over(canvas.frame + y * canvas.stride, spread.colours(), spread.mask(),
                          look.weight, bytes, canvas.out + y * bytes);
        }
    });
    if (look.outline) draw_rims(canvas, labels, columns, look, threads);
}

void count_areas(const Labels &labels, int height, int width, std::int64_t *areas) {
    const std::vector<int> down = starts(labels.rows, height, labels.height);
    const std::vector<int> across = starts(labels.columns, width, labels.width);
    // Four tables by turns: neighbours mostly share their label, and would wait for each other.
    std::array<std::array<std::int64_t, 256>, 4> tables{};
    for (int y = 0; y < labels.height; ++y)
        for (int x = 0; x < labels.width; ++x)
            tables[x & 3][labels.data[y * labels.stride + x]] +=
                static_cast<std::int64_t>(down[y + 1] - down[y]) * (across[x + 1] - across[x]);
    for (int label = 0; label < 256; ++label)
        areas[label] = tables[0][label] + tables[1][label] + tables[2][label] + tables[3][label];
}

}  // namespace edgeseg
