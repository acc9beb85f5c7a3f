// The API server of Kubernetes itself, built from its own module because no registry carries the binary. It is only ever started by
// tests/gitops, on 127.0.0.1, without nodes: it stores what is applied and runs nothing.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	os.Exit(cli.Run(app.NewAPIServerCommand()))
}
