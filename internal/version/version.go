// Package version says which build this is.
package version

// Version is set by the linker: -X github.com/xcarp/xcarp/internal/version.Version=v1.2.3.
var Version = "dev"
