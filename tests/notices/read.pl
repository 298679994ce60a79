# What Sisimai finds in the notice in the file that is named, as JSON: an object for each recipient, those
# that have the message included.
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
