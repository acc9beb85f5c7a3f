//go:build tools

// Package tools names the S3 server of the restore drill, so that go.mod and go.sum fix its version.
package tools

import _ "github.com/seaweedfs/seaweedfs/weed"
