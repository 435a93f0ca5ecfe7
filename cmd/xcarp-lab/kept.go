package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/xcarp/xcarp/internal/lab"
	"github.com/xcarp/xcarp/internal/netns"
)

// upCommand leaves a lab behind, held by a process in the background.
func upCommand() *cobra.Command {
	var program string
	var noSync bool
	c := &cobra.Command{
		Use:   "up",
		Short: "Build the lab and keep it",
		Args:  exactly(0),
		RunE: func(*cobra.Command, []string) error {
			if err := requirements(); err != nil {
				return err
			}
			program, err := lab.FindXCarp(program)
			if err != nil {
				return err
			}
			if _, err := lab.Sweep(); err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			cmd := exec.Command(self, "hold", "--xcarp", program, fmt.Sprintf("--no-sync=%v", noSync))
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			out, err := cmd.StdoutPipe()
			if err != nil {
				return err
			}
			if err := cmd.Start(); err != nil {
				return fmt.Errorf("start the process that holds the lab: %w", err)
			}
			line, _ := bufio.NewReader(out).ReadString('\n')
			line = strings.TrimSpace(line)
			if line != "ready" {
				_ = cmd.Wait()
				return errors.New(line)
			}
			return ask("status")
		},
	}
	c.Flags().StringVar(&program, "xcarp", "", "the xcarp program (default: beside xcarp-lab, then in PATH)")
	c.Flags().BoolVar(&noSync, "no-sync", false, "start the daemons without the sync section")
	return c
}

// holdCommand is the process behind `up`. Its first line says ready, or what
// went wrong.
func holdCommand() *cobra.Command {
	var program string
	var noSync bool
	c := &cobra.Command{
		Use:    "hold",
		Hidden: true,
		Args:   exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := lab.Keep(cmd.Context(), lab.XCarp(program, !noSync), func(*lab.Net) {
				fmt.Println("ready")
				_ = os.Stdout.Close() // whoever waits has heard enough
			})
			if err != nil {
				fmt.Println(err)
			}
			return err
		},
	}
	c.Flags().StringVar(&program, "xcarp", "", "")
	c.Flags().BoolVar(&noSync, "no-sync", false, "")
	return c
}

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "Take the kept lab down", Args: exactly(0),
		RunE: func(*cobra.Command, []string) error { return ask("down") },
	}
}

func statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show where the routers of the kept lab stand", Args: exactly(0),
		RunE: func(*cobra.Command, []string) error { return ask("status") },
	}
}

func cutCommand() *cobra.Command {
	var words []string
	for _, f := range lab.Faults {
		words = append(words, string(f))
	}
	return &cobra.Command{
		Use:   "cut FAULT | heal",
		Short: "Make a fault of fw-a in the kept lab, or heal it",
		Long:  "Makes a fault of fw-a in the kept lab, or heals it. The faults are " + strings.Join(words, ", ") + ".",
		Args:  exactly(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] == "heal" {
				return ask("heal")
			}
			return ask("cut " + args[0])
		},
	}
}

func execCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "exec NODE PROGRAM [ARG...]",
		Short: "Run a program on fw-a, fw-b, client or server of the kept lab",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usageError{errors.New("needs a node and a program")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return execIn(cmd.Context(), args[0], args[1:]) },
	}
	c.Flags().SetInterspersed(false) // flags after the node are the program's
	return c
}

// execIn runs a program on a node, with this process's terminal.
func execIn(ctx context.Context, node string, args []string) error {
	name, err := lab.KeptNamespace(node)
	if err != nil {
		return err
	}
	ns, err := netns.Open(name)
	if err != nil {
		return err
	}
	defer ns.Release()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := ns.Start(cmd); err != nil {
		return fmt.Errorf("run %s on %s: %w", args[0], node, err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s on %s: %w", args[0], node, err)
	}
	return nil
}

// ask gives the kept lab a command and prints the answer.
func ask(command string) error {
	text, err := lab.Ask(command)
	if err != nil {
		return err
	}
	_, err = io.WriteString(os.Stdout, text)
	return err
}

// exactly accepts n arguments.
func exactly(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return usageError{fmt.Errorf("takes %d arguments, got %d", n, len(args))}
		}
		return nil
	}
}
