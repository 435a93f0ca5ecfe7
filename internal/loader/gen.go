package loader

// The compiler's output depends on its version: clang 19. Nothing of the machine
// gets in: headers come from the tree (vmlinux.h) and from libbpf, debug paths are
// relative. Only the xdp object carries the Go types, all of which carp.h defines.

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package loader -type layout -type vhid_flag -type vhid -type owner -type share_flag -type share -type port_flag -type port -type reason -type digest_key -type trailer_key -type shield_flag -type shield -type mark -type known -type sample -type pulse_kind -type pulse_session -type pulse_group -type pulse_heard -type pulse_path -type pulse_event xdp ../../bpf/xdp.bpf.c -- -O2 -g -Wall -Werror -fno-strict-aliasing -mcpu=v3 -fdebug-prefix-map=../..=. -I../.. -I../../bpf
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package loader -no-global-types ingress ../../bpf/ingress.bpf.c -- -O2 -g -Wall -Werror -fno-strict-aliasing -mcpu=v3 -fdebug-prefix-map=../..=. -I../.. -I../../bpf
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package loader -no-global-types egress ../../bpf/egress.bpf.c -- -O2 -g -Wall -Werror -fno-strict-aliasing -mcpu=v3 -fdebug-prefix-map=../..=. -I../.. -I../../bpf
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package loader -no-global-types pass ../../bpf/pass.bpf.c -- -O2 -g -Wall -Werror -fno-strict-aliasing -mcpu=v3 -fdebug-prefix-map=../..=. -I../.. -I../../bpf
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -go-package loader -no-global-types pulse ../../bpf/pulse.bpf.c -- -O2 -g -Wall -Werror -fno-strict-aliasing -mcpu=v3 -fdebug-prefix-map=../..=. -I../.. -I../../bpf
