/*
 * env_rings.h: the core's environment over the rings of one session with janusd.
 *
 *   RX slot of the core = a reference here ──> a slot of J2A, or after a re-attach a private copy of one
 *   TX slot of the core = the slot of A2J with the same number; free ones are a private LIFO stack
 *
 * The indirection lets unread data outlive its region: numbers that the core holds stay what they are.  janusd's indices and
 * descriptors are trusted to be sane but checked to be in bounds; a bad one is counted and skipped.
 */
#ifndef APP_ENV_RINGS_H
#define APP_ENV_RINGS_H

#include "app/balance.h"
#include "app/driver.h"
#include "app/region.h"
#include "shm/ring.h"

struct rx_ref {
    uint32_t slot;       /* in J2A, or SHM_NO_SLOT: the data is private, or lent since an earlier session */
    uint16_t generation; /* to be given back with the slot */
};

struct tx_meta {
    uint16_t generation; /* counted up at each tx_alloc(): a completion of an earlier life is not ours */
    bool held;           /* the core owns it */
    bool busy;           /* janusd still reads it */
};

struct env_rings {
    struct region *region;
    struct balance *balance;
    bool up;         /* false: janusd is away, what is sent is lost and counted */
    bool trust_hash; /* descriptors' hashes are made with the stack's secret */
    bool checksum_offload;
    uint32_t io_tx; /* the I/O thread that sends for this tid */
    uint32_t io_next;
    uint32_t io_shift;           /* RX slot >> io_shift: its I/O thread */
    uint8_t tx_flags;            /* of every packet's descriptor */
    uint32_t rx_total, tx_total; /* numbers the core knows; fixed for life */
    struct ring_consumer rx[SHM_IO_MAX], tx_done[SHM_IO_MAX];
    struct ring_producer tx, rx_return[SHM_IO_MAX];
    uint32_t tx_published, rx_return_published[SHM_IO_MAX];
    const uint8_t *rx_slots; /* of region */
    uint8_t *tx_slots;
    struct rx_ref *refs;
    uint32_t *rx_free;
    uint32_t rx_free_count;
    uint32_t rx_given; /* of the free ones: the slots of those above are still to be given back */
    struct tx_meta *tx_meta;
    uint32_t *tx_free;
    uint32_t tx_free_count;
    uint8_t *rx_private;            /* rx_total slots, touched as needed */
    const uint8_t *old_tx, *old_rx; /* during a rebase: the old session's slots */
    uint8_t random[256];
    uint32_t random_left;
    uint64_t sent_detached, violations, sent_refused;
    uint64_t heartbeat;
};

/* Sets up for region (borrowed) and makes it live.  0 or -ENOMEM. */
int env_rings_init(struct env_rings *e, struct region *region, bool checksum_offload);
void env_rings_free(struct env_rings *e);

/* What tcp_init() and the loop want. */
void env_rings_env(struct env_rings *e, struct tcp_env *env);
void env_rings_driver(struct env_rings *e, struct driver *driver);

/* janusd is gone: nothing is sent, received or given back; what the core holds stays readable. */
void env_rings_down(struct env_rings *e);

/* True when region has room for all that the core may hold: the condition of env_rings_rebase_begin(). */
bool env_rings_fits(const struct env_rings *e, const struct region *region);
/* A rebase: begin, tcp_rebase() with the two move functions, end.  region is the new one (borrowed); old stays mapped until end. */
void env_rings_rebase_begin(struct env_rings *e, struct region *old, struct region *region);
uint32_t env_rings_move_tx(void *context, uint32_t slot);
uint32_t env_rings_move_rx(void *context, uint32_t slot);
void env_rings_rebase_end(struct env_rings *e);

#endif
