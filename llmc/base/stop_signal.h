// SIGINT, SIGTERM and SIGUSR1 (what mpirun passes on and batch systems send) without signal handlers. A handler would
// run on the stack of whatever thread the signal hits, and just-in-time compiled matrix kernels use their stack pointer
// for other things meanwhile. So the signals are blocked in every thread, and one thread does nothing but wait for
// them.
#pragma once

namespace llmc {

/// To be called in main() before there is any other thread. A signal then ends the program as it always does, except
/// while a StopRequest is alive.
void watch_stop_signals();

/// While it is alive, the first signal is only a request. A second one of the same kind, more than a second later, ends
/// the program; the other kinds ask for nothing new: Ctrl-C under a script that passes it on as SIGTERM. One at a time.
class StopRequest {
  public:
    StopRequest();
    ~StopRequest();
    StopRequest(const StopRequest&) = delete;
    StopRequest& operator=(const StopRequest&) = delete;

    /// The signal that came, or 0.
    int signal() const;
};

}  // namespace llmc
