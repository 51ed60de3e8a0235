/*
 * address.c: addresses as text.
 */
#include "app/address.h"

#include <arpa/inet.h>
#include <stdio.h>

bool address_parse(const char *text, struct ip_addr *addr)
{
    uint8_t v4[4];

    *addr = (struct ip_addr){0};
    if (text == NULL || inet_pton(AF_INET6, text, addr->b) == 1)
        return true;
    if (inet_pton(AF_INET, text, v4) != 1)
        return false;
    *addr = ip_addr_from_ipv4(v4);
    return true;
}

char *address_name(const struct ip_addr *addr, uint16_t port, char *name, size_t size)
{
    char text[INET6_ADDRSTRLEN];

    if (ip_addr_is_ipv4(addr))
        (void)snprintf(name, size, "%s:%u", inet_ntop(AF_INET, addr->b + 12, text, sizeof text), port);
    else
        (void)snprintf(name, size, "[%s]:%u", inet_ntop(AF_INET6, addr->b, text, sizeof text), port);
    return name;
}
