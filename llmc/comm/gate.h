// The gate of a rank: whoever connects to it is a stranger until he has proven that he knows the job's secret, and so
// has the gate to him. Strangers cost little: few are let wait, each for seconds, with room for one short message; who
// is silent, speaks something else or is one too many is sent away, and nothing he sends can end a run.
//
//   who knocks                          the gate
//   Knock {nonce a}                ->
//                                  <-   Challenge {nonce b, proof of ("gate", purpose, a, b, ends)}
//   Hello {proof of ("guest", purpose, a, b, ends, hello), hello}   ->
//
// Nonces are new for every connection: a conversation that was recorded opens nothing. `ends` is ends_within_host():
// who listens where an address means this host alone, and passes on to the gate what he hears, has other ends. After
// the Hello the connection is a guest's, and what the two say to each other is theirs (meet.h, tcp_mesh.h).
#pragma once

#include "llmc/comm/link.h"
#include "llmc/comm/secret.h"

#include <deque>
#include <poll.h>
#include <string>
#include <vector>

namespace llmc {

constexpr uint64_t kLongestHello = 4096;

/// Who knows the secret. His link expects nothing yet.
struct Guest {
    Link link;
    std::string hello;
};

class Gate {
  public:
    /// `purpose` is what guests come for, and must be the same for them.
    Gate(std::vector<Socket> listeners, const Secret& secret, std::string purpose);

    /// What admit() waits for, for poll().
    void add_to(std::vector<pollfd>& entries) const;
    /// Lets strangers in, hears them, and returns those who are guests now. Never blocks. An Error where this process
    /// has too many files open without any stranger.
    std::vector<Guest> admit();

    /// "; 2 connections, the last from 10.0.0.9, did not know this job's LLMC_JOB_SECRET"; "" if there were none.
    std::string remark_on_refused() const;

  private:
    struct Stranger {
        Link link;
        std::string from, ends;  ///< His address; ends_within_host().
        double until = 0;        ///< He is a guest by then, or is sent away.
        std::string nonces = "";
        bool was_challenged = false;
    };
    enum class Answer : uint8_t { Wait, Enter, Leave };

    void accept();
    /// Sends one away, of the address that has most here: a flood makes room for itself. Of these any, so that whoever
    /// keeps trying from the same address comes through it at last.
    void make_room();
    Answer hear(Stranger& stranger, std::string* hello);
    bool challenge(Stranger& stranger, const Message& knock) const;
    void note_refused(const Stranger& stranger);

    std::vector<Socket> listeners_;
    Secret secret_;
    std::string purpose_;
    std::deque<Stranger> strangers_;
    int refused_ = 0;
    std::string last_refused_;
};

/// Knocks at a gate and says hello: a link to the gate, which has proven that it knows the secret; without success no
/// link, and `why` in words. The gate's answer to the hello is the caller's to await, by expect().
/// `*is_other_job` becomes true where somebody answered who does not know the secret.
Link knock(const std::string& host, int port, const Secret& secret, const std::string& purpose,
           const std::string& hello, double deadline, std::string* why, bool* is_other_job = nullptr);

}  // namespace llmc
