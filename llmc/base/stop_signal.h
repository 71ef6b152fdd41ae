// Signals by which people, terminals and schedulers announce the end, without signal handlers. A handler would run on
// the stack of whatever thread the signal hits, and just-in-time compiled matrix kernels use their stack pointer for
// other things meanwhile. So the signals are blocked in every thread, and one thread does nothing but wait for them.
//
//   SIGINT, SIGTERM, SIGQUIT    somebody wants it to end; a second time: at once
//   SIGUSR1                     the same through mpirun and srun, which pass it on; batch systems, before they kill
//   SIGUSR2                     batch systems
//   SIGHUP                      the terminal is gone
//   SIGXCPU, SIGALRM            limits of time; the first is sent again every second
//   SIGPWR                      the power fails
//
// One that was ignored when the program began (nohup, jobs in a script's background) stays ignored.
#pragma once

#include <string>

namespace llmc {

/// To be called in main() before there is any other thread. A signal then ends the program as it always does, except
/// while a StopRequest is alive. Also as a container's process 1, which the system's default actions leave alone.
void watch_stop_signals();

/// For people: "Ctrl-C (SIGINT)", "SIGTERM".
std::string signal_in_words(int signal);

/// While it is alive, the first signal is only a request, which is acknowledged in the log at once. A second SIGINT,
/// SIGTERM, SIGQUIT or SIGUSR1 (of the same kind, and not the same request delivered twice) ends the program, and says
/// so; all others ask for nothing new: Ctrl-C under a script that passes it on as SIGTERM. One at a time.
class StopRequest {
  public:
    /// `remedy` is said where the program ends without saving: how to go on.
    explicit StopRequest(const std::string& remedy);
    ~StopRequest();
    StopRequest(const StopRequest&) = delete;
    StopRequest& operator=(const StopRequest&) = delete;

    /// The signal that came first, or 0. To be called in the thread that made the object.
    int signal() const;
};

}  // namespace llmc
