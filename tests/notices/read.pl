# Prints Sisimai's findings in the notice in the named file, as JSON: an object for each recipient, including
# those that got the message.
use strict;
use warnings;
use JSON::PP;
use Sisimai;

my $found = Sisimai->make($ARGV[0], 'delivered' => 1) || [];
my @list;
for my $one (@$found) {
    push @list, {
        'recipient' => $one->recipient->address,
        'sender'    => $one->addresser->address,
        'status'    => $one->deliverystatus,
        'action'    => $one->action,
        'reason'    => $one->reason,
        'reply'     => $one->diagnosticcode,
        'remote'    => $one->rhost,
        'soft'      => $one->softbounce + 0,
        'subject'   => $one->subject,
        'original'  => $one->messageid,
        'read_by'   => $one->smtpagent,
    };
}
print JSON::PP->new->ascii->canonical->encode(\@list), "\n";
