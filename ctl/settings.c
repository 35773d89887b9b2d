#include "settings.h"

#include "io/keyring.h"

static const struct conf_option settings_options[] = {
    { .key = "manager",
      .type = CONF_LIST,
      .offset = offsetof(struct settings, manager),
      .default_value = "127.0.0.1:19700",
      .help = "the managers, HOST:PORT; one that answers is enough (-m for short)" },
    { .key = "timeout",
      .type = CONF_DURATION,
      .offset = offsetof(struct settings, timeout),
      .min = 10000,
      .max = 3600000000,
      .default_value = "5s",
      .help = "how long to wait for an answer" },
    { .key = "cluster-key",
      .type = CONF_STRING,
      .offset = offsetof(struct settings, cluster_key),
      .min = 1,
      .default_value = KEYRING_AUTO,
      .help = KEYRING_HELP },
    { 0 },
};

const struct conf_program settings_program = {
    .name = "kumoctl",
    .summary = "The operator's shell of a kumofs cluster.",
    .usage = "[OPTION...] [VERB [ARGUMENT...]]",
    .version =
        KUMO_VERSION "\nLicensed under Apache-2.0. This program is linked with GNU readline and is "
                     "as a whole\nunder the terms of the GNU GPL, version 3 or later; there is "
                     "no warranty.",
    .default_path = "/etc/kumofs/kumoctl.conf",
    .options = settings_options,
    .takes_arguments = true,
};
