/*
 * layout.c: the one computation of both regions' layout.
 */
#include "shm/layout.h"

enum { HEADER_BYTES = 4096, SLOTS_MIN = 64, ROW_STRIDE_MIN = 64, ROWS_MAX = 1 << 30 };
#define REGION_ALIGN (UINT64_C(2) << 20)

static bool is_slot_count(uint32_t n)
{
    return n >= SLOTS_MIN && n <= SHM_SLOTS_MAX && (n & (n - 1)) == 0;
}

static uint64_t ring_bytes(uint32_t entries)
{
    return (uint64_t)entries * sizeof(struct shm_desc);
}

static uint64_t round_up(uint64_t value, uint64_t align)
{
    return (value + align - 1) & ~(align - 1);
}

bool shm_layout(const struct shm_sizes *sizes, struct shm_offsets *out)
{
    uint32_t io_count = sizes->io_count, rx = sizes->rx_slots_per_io, tx = sizes->tx_slots;

    if (io_count < 1 || io_count > SHM_IO_MAX || !is_slot_count(rx) || !is_slot_count(tx))
        return false;
    if (sizes->rows < 1 || sizes->rows > ROWS_MAX)
        return false;
    if (sizes->row_stride < ROW_STRIDE_MIN || sizes->row_stride > SHM_ROW_STRIDE_MAX || sizes->row_stride % 8 != 0)
        return false;

    *out = (struct shm_offsets){0};
    uint64_t j2a = HEADER_BYTES, a2j = HEADER_BYTES;
    for (uint32_t i = 0; i < io_count; i++) {
        out->rx[i] = j2a;
        out->tx_done[i] = j2a + ring_bytes(2 * rx);
        j2a = out->tx_done[i] + ring_bytes(tx);
        out->tx[i] = a2j;
        out->rx_return[i] = a2j + ring_bytes(tx);
        a2j = out->rx_return[i] + ring_bytes(rx);
    }
    out->rx_slots = round_up(j2a, HEADER_BYTES);
    out->tx_slots = round_up(a2j, HEADER_BYTES);
    out->j2a_bytes = round_up(out->rx_slots + (uint64_t)io_count * rx * SHM_SLOT_BYTES, REGION_ALIGN);
    out->a2j_bytes = round_up(out->tx_slots + (uint64_t)tx * SHM_SLOT_BYTES, REGION_ALIGN);
    out->rows_bytes = round_up((uint64_t)sizes->rows * sizes->row_stride, REGION_ALIGN);
    return true;
}
