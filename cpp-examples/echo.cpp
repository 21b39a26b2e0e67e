/*
 * A TCP echo server, in which each connection belongs to the operation that is under way on it.
 *
 *     build/cpp/examples/echo [PORT]      on 127.0.0.1; without a port, any that is free
 *
 * SIGINT and SIGTERM end it.
 */
#include <ringloop.hpp>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

using ringloop::Handle;
using ringloop::Loop;
using ringloop::LoopRef;

namespace {

class Descriptor {
public:
    explicit Descriptor(int fd) : fd_(fd)
    {
        if (fd < 0) throw std::system_error(errno, std::generic_category(), "socket");
    }
    Descriptor(Descriptor &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Descriptor &operator=(Descriptor &&) = delete;
    ~Descriptor()
    {
        if (fd_ >= 0) close(fd_);
    }
    operator int() const { return fd_; }

private:
    int fd_;
};

struct Connection {
    Descriptor fd;
    std::array<char, 16384> buffer;
};

using Owner = std::unique_ptr<Connection>;

unsigned long long connections, bytes;

void receive(LoopRef loop, Owner connection);

// The buffer is the callable's, by way of its connection: it lives until the kernel has let go, also when the loop is closed.
void send(LoopRef loop, Owner owner, size_t length)
{
    Connection &connection = *owner;

    loop.start(loop_send_all, connection.fd, connection.buffer.data(), length, 0,
               [owner = std::move(owner)](LoopRef running, int32_t result, uint32_t) mutable {
                   if (result <= 0) return;
                   bytes += static_cast<unsigned long long>(result);
                   receive(running, std::move(owner));
               });
}

// At the end of the stream, or an error, nothing takes the connection on: it is closed.
void receive(LoopRef loop, Owner owner)
{
    Connection &connection = *owner;

    loop.start(loop_recv, connection.fd, connection.buffer.data(), connection.buffer.size(), 0,
               [owner = std::move(owner)](LoopRef running, int32_t result, uint32_t) mutable {
                   if (result > 0) send(running, std::move(owner), static_cast<size_t>(result));
               });
}

void accepted(LoopRef loop, int32_t result, uint32_t)
{
    const int on = 1;

    if (result < 0) {
        // Out of descriptors: the loop tries again by itself.
        if (result != -ECANCELED) std::fprintf(stderr, "echo: accept: %s\n", loop_strerror(result));
        return;
    }
    Owner connection(new Connection{Descriptor(result), {}});
    setsockopt(result, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connections++;
    receive(loop, std::move(connection));
}

Descriptor listen_on(int port)
{
    Descriptor fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    auto *generic = reinterpret_cast<sockaddr *>(&address);
    socklen_t length = sizeof address;
    const int on = 1;

    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, generic, length) < 0 || listen(fd, 1024) < 0 || getsockname(fd, generic, &length) < 0)
        throw std::system_error(errno, std::generic_category(), "listen");
    std::printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    std::fflush(stdout);
    return fd;
}

void serve(int port)
{
    const Descriptor listener = listen_on(port);
    Loop loop;
    const auto stop = [](LoopRef running, int) { running.stop(); };

    loop.add_signal_handler(SIGINT, stop);
    loop.add_signal_handler(SIGTERM, stop);
    Handle accepting(loop, loop_accept_multi, listener, SOCK_CLOEXEC, accepted);
    loop.run_forever();
}

} // namespace

int main(int argc, char **argv)
{
    try {
        serve(argc > 1 ? std::atoi(argv[1]) : 0);
    } catch (const std::exception &error) {
        std::fprintf(stderr, "echo: %s\n", error.what());
        return EXIT_FAILURE;
    }
    std::printf("%llu connections, %llu bytes\n", connections, bytes);
}
