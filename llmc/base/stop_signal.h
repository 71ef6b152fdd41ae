// SIGINT, SIGTERM and SIGUSR1 (what mpirun passes on and batch systems send) without signal handlers. A handler would
// run on the stack of whatever thread the signal hits, and just-in-time compiled matrix kernels use their stack pointer
// for other things meanwhile. So the signals are blocked in every thread, and one thread does nothing but wait for
// them.
#pragma once

#include <string>

namespace llmc {

/// To be called in main() before there is any other thread. A signal then ends the program as it always does, except
/// while a StopRequest is alive.
void watch_stop_signals();

/// While it is alive, the first signal is only a request, which is acknowledged in the log at once. A second one of the
/// same kind (other than the same request delivered twice) ends the program, and says so; the other kinds ask for
/// nothing new: Ctrl-C under a script that passes it on as SIGTERM. One at a time.
class StopRequest {
  public:
    /// `remedy` is said where the program ends without saving: how to go on.
    explicit StopRequest(const std::string& remedy);
    ~StopRequest();
    StopRequest(const StopRequest&) = delete;
    StopRequest& operator=(const StopRequest&) = delete;

    /// The signal that came, or 0.
    int signal() const;
};

}  // namespace llmc
