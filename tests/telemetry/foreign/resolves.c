/* Resolves a name as static programs do that leave it to glibc: the proof that the root is a trap. */
#include <netdb.h>

int main(int count, char **words) {
    struct addrinfo *found = 0;
    return count == 2 && getaddrinfo(words[1], "80", 0, &found) == 0 ? 0 : 1;
}
