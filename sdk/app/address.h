/*
 * address.h: addresses as text.
 */
#ifndef APP_ADDRESS_H
#define APP_ADDRESS_H

#include "wire/flow.h"

#include <stddef.h>

/* "192.0.2.1" or "2001:db8::1"; null is the address of all zeros.  False: text is neither. */
bool address_parse(const char *text, struct ip_addr *addr);

/* "192.0.2.1:80" or "[2001:db8::1]:80"; returns name. */
char *address_name(const struct ip_addr *addr, uint16_t port, char *name, size_t size);

#endif
