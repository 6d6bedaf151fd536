rule figure_training_examples:
    input:
        packed="results/datasets/{dataset}/packed.json",
        code=code("dark_halo_scope.paper.training_examples", "figures"),
    output:
        "results/figures/training_examples_{dataset}.png",
        "results/figures/training_examples_{dataset}.pdf",
    log:
        "logs/figure_training_examples/{dataset}.log",
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings("dataset", "examples"),
    message:
        "Drawing examples of {wildcards.dataset}"
    shell:
        "exec python -m dark_halo_scope.paper.training_examples --packed {input.packed}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"
