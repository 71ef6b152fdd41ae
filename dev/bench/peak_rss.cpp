// Runs a command and tells the most memory it had resident at once, as the kernel reports it when the process ends.
// The command keeps its output and its exit status; the bytes go to FILE.
//
//   peak_rss FILE COMMAND [ARGUMENT...]
#include <cstdio>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char** argv) {
    if (argc < 3) {
        std::fprintf(stderr, "usage: peak_rss FILE COMMAND [ARGUMENT...]\n");
        return 2;
    }
    const pid_t child = fork();
    if (child == 0) {
        execvp(argv[2], argv + 2);
        std::perror(argv[2]);
        _exit(127);
    }
    int status = 0;
    rusage usage = {};
    if (child < 0 || wait4(child, &status, 0, &usage) != child) {
        std::perror("peak_rss");
        return 1;
    }
    std::FILE* file = std::fopen(argv[1], "w");
    if (!file || std::fprintf(file, "%ld\n", usage.ru_maxrss * 1024) < 0 || std::fclose(file) != 0) {  // From KiB.
        std::perror(argv[1]);
        return 1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
