// Runs every row kernel on fixed numbers and prints a checksum each: two builds of rows.cpp that
// print the same compute the same. Arrays are as long as the kernels may touch and no longer.

#include <cstdio>
#include <cstring>
#include <vector>

#include "../../edgeseg/native/rows.hpp"

#define EDGESEG_JOIN(level) edgeseg::level::rows
#define EDGESEG_ROWS(level) EDGESEG_JOIN(level)

static unsigned state = 1;
static unsigned next() { return state = state * 1664525u + 1013904223u, state >> 8; }

template <class T>
static std::vector<T> noise(std::size_t count) {
    std::vector<T> result(count);
    for (T &value : result) value = static_cast<T>(static_cast<int>(next() & 0xffff) - 0x8000);
    return result;
}

template <class T>
static void print(const char *name, std::size_t count, const std::vector<T> &values) {
    unsigned long long sum = 1469598103934665603ull;  // FNV-1a
    const auto *bytes = reinterpret_cast<const unsigned char *>(values.data());
    for (std::size_t i = 0; i < values.size() * sizeof(T); ++i) sum = (sum ^ bytes[i]) * 1099511628211ull;
    std::printf("%s %zu %016llx\n", name, count, sum);
}

int main() {
    const edgeseg::Rows &rows = EDGESEG_ROWS(EDGESEG_LEVEL);
    for (std::size_t n : {1, 2, 3, 7, 8, 15, 16, 31, 33, 64, 127, 129, 300, 1280, 2000}) {
        const int count = static_cast<int>(n), channels = 5;
        const auto above = noise<std::uint8_t>(n), below = noise<std::uint8_t>(n),
                   frame = noise<std::uint8_t>(n);
        std::vector<std::int16_t> row(n + edgeseg::kRowSlack);
        for (int weight : {0, 1, 77, 255, 256}) {
            rows.blend_rows(above.data(), (weight ? below : above).data(), weight, row.data(), n);
            print("blend_rows", n, row);
        }
        const std::size_t whole = (n + edgeseg::kColumns - 1) / edgeseg::kColumns * edgeseg::kColumns;
        std::vector<edgeseg::Tap> taps(whole);
        for (auto &tap : taps) {
            const unsigned weight = next() % 257;
            tap = {static_cast<int>(next() % n), weight << 16 | (256 - weight)};
        }
        std::vector<std::uint8_t> planes(3 * whole);
        const auto apart = static_cast<std::ptrdiff_t>(whole);
        rows.blend_columns(row.data(), taps.data(), 3, count, planes.data(), apart);
        for (std::size_t i = 0; i < planes.size(); ++i)
            if (i % whole >= n) planes[i] = 0;  // of the last step, however much that is
        print("blend_columns", n, planes);
        std::vector<std::uint32_t> sums(n, 7);
        rows.add_row(above.data(), 1280, sums.data(), n);
        print("add_row", n, sums);
        rows.to_grey(planes.data(), apart, count);
        print("to_grey", n, planes);
        std::vector<float> scaled(n);
        rows.scale(planes.data(), {1.25f / 64, -2.5f, 3e-8f, -1e-7f}, count, scaled.data());
        print("scale", n, scaled);

        const auto colours = noise<std::uint8_t>(n);
        auto mask = noise<std::uint8_t>(n);
        for (auto &value : mask) value = value % 2 ? 255 : 0;
        std::vector<std::uint8_t> out(n);
        for (int weight : {0, 1, 77, 128, 255, 256}) {
            rows.lay_over(frame.data(), colours.data(), mask.data(), weight, n, out.data());
            print("lay_over", n, out);
        }
        auto labels = noise<std::uint8_t>(3 * n);
        for (auto &label : labels) label = label % 16 == 0;
        rows.find_rim(&labels[0], &labels[n], &labels[2 * n], count, out.data());
        print("find_rim", n, out);

        const auto floats = noise<float>(channels * n);
        const auto halves = noise<std::int16_t>(channels * n);
        const auto bytes = noise<std::int8_t>(channels * n);
        const auto plane = static_cast<std::ptrdiff_t>(n);
        rows.argmax_float(floats.data(), plane, channels, n, out.data());
        print("argmax_float", n, out);
        rows.argmax_half(halves.data(), plane, channels, n, out.data());
        print("argmax_half", n, out);
        rows.argmax_int8(bytes.data(), plane, channels, n, out.data());
        print("argmax_int8", n, out);

        auto shown = labels;
        shown.resize(n);
        auto votes = noise<std::uint8_t>(n);
        for (int step : {1, 80, 255}) {
            rows.vote(&labels[n], mask.data(), step, n, shown.data(), votes.data());
            print("vote", n, shown);
            print("vote", n, votes);
        }
    }
}
