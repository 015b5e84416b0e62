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

// Every other value of sixteen bytes of pixels.
using Run = std::array<std::uint16_t, 8>;

// A stretch of a Veil, of the even and of the odd bytes.
struct Piece {
    Run keep[2], shade[2];
};

// What each label lays over pixels, the first of which begins with an even [0] or odd [1] byte.
using Pieces = std::array<std::array<Piece, 256>, 2>;

Pieces pieces(const Look &look) {
    Pieces result{};
    for (int start : {0, 1})
        for (int odd : {0, 1}) {
            result[start][0].keep[odd].fill(256);
            for (int label = 1; label < 256; ++label) {
                result[start][label].keep[odd].fill(static_cast<std::uint16_t>(256 - look.weight));
                for (int i = 0; i < 8; ++i)
                    result[start][label].shade[odd][i] = static_cast<std::uint16_t>(
                        look.colours[3 * label + ((start ^ odd) + 2 * i) % 3] * look.weight + 128);
            }
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

// The Veil of a row of labels.
class Spread {
public:
    Spread(const std::vector<int> &starts, const Pieces &pieces)
        : starts_(starts.data()),
          count_(static_cast<int>(starts.size()) - 1),
          pieces_(pieces),
          part_((3 * static_cast<std::size_t>(starts.back()) + 1) / 2 + std::tuple_size_v<Run>),
          values_(4 * part_) {}

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

    Veil veil() const {
        const std::uint16_t *keep = values_.data(), *shade = keep + 2 * part_;
        return {{keep, keep + part_}, {shade, shade + part_}};
    }

private:
    // Writes whole pieces: what is too much the next label covers, or is put back at the end.
    void renew(const std::uint8_t *labels, int first, int end) {
        const int *starts = starts_;  // which no write to values_ can change
        const Piece after = read(starts[end]);
        for (int i = first, x = starts[first]; i < end; ++i, x = starts[i])
            for (const int stop = starts[i + 1]; x < stop; x += kPixels)
                write(x, pieces_[x & 1][labels[i]]);
        write(starts[end], after);
    }

    Piece read(std::size_t x) const {
        const std::uint16_t *even = values_.data() + (3 * x + 1) / 2;
        const std::uint16_t *odd = values_.data() + part_ + 3 * x / 2;
        Piece piece;
        std::memcpy(&piece.keep[0], even, sizeof(Run));
        std::memcpy(&piece.keep[1], odd, sizeof(Run));
        std::memcpy(&piece.shade[0], even + 2 * part_, sizeof(Run));
        std::memcpy(&piece.shade[1], odd + 2 * part_, sizeof(Run));
        return piece;
    }

    void write(std::size_t x, const Piece &piece) {
        std::uint16_t *even = values_.data() + (3 * x + 1) / 2;
        std::uint16_t *odd = values_.data() + part_ + 3 * x / 2;
        std::memcpy(even, &piece.keep[0], sizeof(Run));
        std::memcpy(odd, &piece.keep[1], sizeof(Run));
        std::memcpy(even + 2 * part_, &piece.shade[0], sizeof(Run));
        std::memcpy(odd + 2 * part_, &piece.shade[1], sizeof(Run));
    }

    const int *starts_;
    int count_;
    const Pieces &pieces_;
    std::size_t part_;
    std::vector<std::uint16_t> values_;  // keep of even and of odd bytes, shade of both
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
            rows().find_rim(row(y - 1), row(y), row(y + 1), canvas.width, rim.data());
            std::uint8_t *out = canvas.out + static_cast<std::size_t>(y) * canvas.width * 3;
            for (int x = 0; (x = next_in(rim.data(), x, canvas.width)) < canvas.width; ++x)
                std::memcpy(out + 3 * x, look.colours + 3 * rim[x], 3);
        }
    });
}

}  // namespace

void overlay(const Canvas &canvas, const Labels &labels, const Look &look, int threads) {
    const Rows &simd = rows();
    const Pieces table = pieces(look);
    const std::size_t bytes = static_cast<std::size_t>(canvas.width) * 3;
    const std::vector<int> columns = starts(labels.columns, canvas.width, labels.width);

    share_out(canvas.height, threads, [&](int begin, int end) {
        Spread spread(columns, table);
        for (int y = begin; y < end; ++y) {
            if (y == begin || labels.rows[y] != labels.rows[y - 1])
                spread.follow(labels.data + labels.rows[y] * labels.stride);
            simd.lay_over(canvas.frame + y * canvas.stride, spread.veil(), bytes,
                          canvas.out + y * bytes);
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
