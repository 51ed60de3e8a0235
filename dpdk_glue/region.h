/*
 * region.h: memory that janusd shares with one app, made so that neither side can pull a page from under the other.
 *
 *   REGION_OURS    janusd writes: mapped, populated and sealed before the app sees it; the app can only read
 *   REGION_THEIRS  the app writes: mapped read-only here and not touched before region_seal(), which comes after the app has
 *                  mapped it
 *   the rows       the app maps and writes them and may pull their pages away; janusd reads their file and never maps it
 *
 * Sealed means: no resize, no new writable mapping, no hole punched, no further seal.
 */
#ifndef DPDK_GLUE_REGION_H
#define DPDK_GLUE_REGION_H

#include "csb/circle.h"

#include <stdbool.h>
#include <stdint.h>

enum { REGION_CSB_BYTES = (sizeof(struct csb_region) + 4095) / 4096 * 4096 };
enum region_side { REGION_OURS, REGION_THEIRS };

/* Makes and maps a region, in huge pages where *huge asks for it and there are enough; *huge says whether.  0 or -errno. */
int region_make(const char *name, uint64_t bytes, enum region_side side, int *fd, uint8_t **memory, bool *huge);
/* The late seals, then the pages of the first bytes present.  0 or -errno. */
int region_seal(int fd, uint8_t *memory, uint64_t bytes, enum region_side side);
/* Makes the file of rows, of fixed size, in huge pages where *huge asks for it and there are enough; the first present bytes have
 * their pages.  app_fd goes to the app; own_fd is another open file of it, read-only, whose flags the app cannot set.  0 or -errno. */
int region_make_rows(uint64_t bytes, uint64_t present, int *app_fd, int *own_fd, bool *huge);
void region_unmap(uint8_t *memory, uint64_t bytes);

#endif
